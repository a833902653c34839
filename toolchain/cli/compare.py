"""`toolchain compare`: what changed between two versions?"""

from pathlib import Path
from typing import Annotated

import typer

from toolchain.cli.app import JsonOption, new_app
from toolchain.cli.output import emit, emit_json, emit_table

app = new_app()


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="The older artifact or release directory.")],
    after: Annotated[Path, typer.Argument(help="The newer one.")],
    as_json: JsonOption = False,
) -> None:
    """Show what differs, target by target; equal fields are left out."""
    from toolchain.package.compare import compare_releases
    from toolchain.package.read import read_release

    comparisons = compare_releases(read_release(before), read_release(after))
    if as_json:
        emit_json(comparisons)
        return
    for found in comparisons:
        emit(f"{found.target}: {found.before} -> {found.after}")
        for warning in found.warnings:
            emit(f"warning: {warning}")
        if found.differences:
            rows = [(each.field, each.before or "-", each.after or "-", each.change) for each in found.differences]
            emit_table(("", "before", "after", "change"), rows)
        else:
            emit("no difference")
