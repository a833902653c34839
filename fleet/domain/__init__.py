"""Devices, rollouts, gates, health and drift as pure functions: no framework, no clock, no I/O."""
