"""Engine adapters behind one protocol; listing them imports no engine."""
