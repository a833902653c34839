"""The processing steps a manifest may name: one code for host and device, NumPy only."""
