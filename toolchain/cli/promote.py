"""`toolchain promote`: name the release that carries an alias in the model registry."""

from typing import Annotated

import typer

from toolchain.cli.app import JsonOption, new_app
from toolchain.cli.output import emit, emit_json

app = new_app()


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    version: Annotated[str, typer.Argument(help="Version of the release, as in its recipe.")],
    alias: Annotated[str, typer.Option(metavar="NAME", help="Alias to move.")] = "champion",
    as_json: JsonOption = False,
) -> None:
    """Let an alias name this release in the registry that tracked its build."""
    from toolchain.tracking import promote as move

    done = move(model, version, alias)
    if as_json:
        emit_json(done)
    else:
        emit(f"{alias} of {model} is now {version}" + (f", was {done.before}" if done.before else ""))
