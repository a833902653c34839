"""Which subcommands are there, and which module holds each?

To add one: write `toolchain/cli/NAME.py` with a `typer.Typer` called `app` (one @app.command for a plain command, several for a
group) and add a line to COMMANDS. The module is imported only when its command runs, so `--help` stays fast.
"""

import importlib
from typing import Any

import typer
import typer.core
import typer.main

COMMANDS = {
    "build": "Compile a recipe into measured artifacts and a report.",
    "cache": "Show or shrink the stage cache.",
    "init": "Start a new project: recipe, model module, README.",
    "inspect": "Show what is in artifacts and what they were made from.",
    "compare": "Show what changed between two versions.",
    "bench": "Measure artifacts on this machine, beside one another.",
    "doctor": "Say what this host can train, convert and run, and why not.",
    "keys": "Make, show and rotate signing keys; authorize a fleet's service.",
    "publish": "Sign a built release and bring it to a fleet.",
    "bundle": "Write a published release as one file for devices without a network.",
    "promote": "Let a registry alias name a release.",
    "config": "Show the toolchain's settings and where each came from.",
}
"""Name of the command -> its line in `toolchain --help`. A dash in the name is an underscore in the module's."""


class LazyCommands(typer.core.TyperGroup):
    """Lists commands from the table; imports the module of the one that runs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"toolchain.cli.{cmd_name.replace('-', '_')}")
        command = typer.main.get_command(module.app)
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
    help="Compile models for edge devices: one recipe in, signed and measured artifacts out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich would cost a third of the start-up budget
    pretty_exceptions_enable=False,
)


@app.callback()
def toolchain(debug: bool = typer.Option(False, "--debug", help="Show the traceback when something fails.")) -> None:
    """Compile models for edge devices: one recipe in, signed and measured artifacts out."""
