"""Which exit status says what? The same for all commands of the device side."""

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_USAGE = 2
"""Usage or configuration."""
EXIT_UNMET = 3
"""A check was not met."""
EXIT_FAILED = 4
"""A step, or something outside, failed."""
EXIT_MISSING = 5
"""Something needed is not installed."""
EXIT_REFUSED = 6
"""An artifact, signature or message was refused."""
EXIT_STUCK = 7
"""The daemon stood still and its watchdog ended it."""
EXIT_INTERRUPTED = 130
