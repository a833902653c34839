"""What the toolchain makes of known networks, and what a peer makes of the same: `python -m benchmarks.toolchain`."""
