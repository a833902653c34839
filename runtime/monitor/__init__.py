"""What the device notices about its inferences: counts in bounded memory, never the inputs themselves."""
