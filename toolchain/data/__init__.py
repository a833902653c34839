"""Where examples come from: sources, what they read, and whether the data is fit to train on."""
