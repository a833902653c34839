"""Figures about a variant: quality, parity with the float model, latency."""
