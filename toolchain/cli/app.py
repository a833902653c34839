"""How is the typer app of a subcommand made, so that its `--help` stays as fast as the main one?"""

from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def new_app(help: str | None = None) -> typer.Typer:
    """help: of a group of commands; a single command brings its own docstring. rich would cost 0.3 s of start-up."""
    return typer.Typer(
        help=help,
        no_args_is_help=help is not None,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
