"""The `fleet` command: one module per subcommand, each loaded only when it is asked for."""

from fleet.cli.entry import main

__all__ = ["main"]
