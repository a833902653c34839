"""Smaller and faster variants of a float model; one module per engine, for the scheme belongs to the engine."""
