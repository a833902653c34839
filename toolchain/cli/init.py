"""`toolchain init`: a new project that builds as it stands."""

from pathlib import Path
from typing import Annotated

import typer

from toolchain.cli.app import JsonOption, new_app
from toolchain.cli.output import emit, emit_json

app = new_app()


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Folder of the new project; made when absent.")],
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="Name of the model: a-z, 0-9 and -.")],
    as_json: JsonOption = False,
) -> None:
    """Write a recipe, a model module and a README. Nothing is overwritten."""
    from toolchain.project import create_project

    paths = create_project(directory, model)
    if as_json:
        emit_json([str(path) for path in paths])
        return
    for path in paths:
        emit(str(path))
    emit(f"next: toolchain build {directory / 'recipe.toml'}")
