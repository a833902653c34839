"""What the service signs, and which uploaded metadata it accepts."""
