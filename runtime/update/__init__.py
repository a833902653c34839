"""Bringing a new artifact onto the device, and back off it: the update state machine and its actions."""
