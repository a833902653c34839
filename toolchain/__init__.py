"""The host side: one recipe becomes measured, signed artifacts for every target."""
