"""The search over a recipe's own keys: each trial is a build on training and validation data."""
