"""Which subcommands are there, and which module holds each?

To add one: write `fleet/cli/NAME.py` with a `typer.Typer` called `app` (one @app.command for a plain command, several for a
group) and add a line to COMMANDS. The module is imported only when its command runs, so `--help` stays fast.
"""

import importlib
from typing import Any

import typer
import typer.core
import typer.main

COMMANDS = {
    "init": "Make the home of a new fleet from the public trust root.",
    "serve": "Run the service: API, dashboard, device door, broker, rollouts.",
    "device": "List, show and revoke devices.",
    "token": "Make tokens that let devices in, or people and programs use the API.",
    "rollout": "Create, watch, pause, resume, approve and roll back rollouts.",
    "alert": "What needs attention.",
    "config": "Every setting with its origin.",
}
"""Name of the command -> its line in `fleet --help`."""


class LazyCommands(typer.core.TyperGroup):
    """Lists commands from the table; imports the module of the one that runs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        command = typer.main.get_command(importlib.import_module(f"fleet.cli.{cmd_name}").app)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.commands: Any = dict.fromkeys(COMMANDS)  # what "did you mean" looks at
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=LazyCommands,
    help="Keep a fleet of devices on the right models: releases, staged rollouts, drift.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich would cost a third of the start-up budget
    pretty_exceptions_enable=False,
)


@app.callback()
def fleet(debug: bool = typer.Option(False, "--debug", help="Show the traceback when something fails.")) -> None:
    """Keep a fleet of devices on the right models: releases, staged rollouts, drift."""
