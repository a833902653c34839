"""Pack, sign, publish and bundle artifacts."""
