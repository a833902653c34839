"""The `toolchain` command: one module per subcommand, each loaded only when it is asked for."""

from toolchain.cli.entry import main

__all__ = ["main"]
