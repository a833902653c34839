"""`toolchain compare`: what changed between two versions?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolchain.cli.app import JsonOption, new_app
from toolchain.cli.output import emit, emit_json, emit_table, say

if TYPE_CHECKING:
    from toolchain.package.compare import Comparison

app = new_app()


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="The older artifact or release directory.")],
    after: Annotated[Path, typer.Argument(help="The newer one.")],
    as_json: JsonOption = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write one self-contained page.")] = None,
) -> None:
    """Show what differs, target by target: figures with their intervals, model, recipe, lineage; equal fields are left out."""
    from toolchain.package.compare import compare_releases, unmatched
    from toolchain.package.read import read_release

    releases = read_release(before), read_release(after)
    comparisons, lonely = compare_releases(*releases), unmatched(*releases)
    if html is not None:
        _write(comparisons, lonely, html)
    if as_json:
        emit_json(comparisons)
        return
    for text in lonely:
        emit(f"note: {text}")
    for found in comparisons:
        _show(found)


def _write(comparisons: "list[Comparison]", notes: list[str], path: Path) -> None:
    from toolchain.errors import UsageError
    from toolchain.report.versions import write_comparison

    try:
        write_comparison(comparisons, notes, path)
    except OSError as error:
        raise UsageError(f"--html {path}: cannot be written: {error.strerror}") from error
    say(f"wrote {path}")


def _show(found: "Comparison") -> None:
    from toolchain.report.versions import TITLES, change_text, figure_text

    emit(f"{found.target}: {found.before} -> {found.after}")
    for warning in found.warnings:
        emit(f"warning: {warning}")
    for note in found.notes:
        emit(f"note: {note}")
    if found.is_same:
        emit("no difference")
        return
    rows = [
        (each.name, figure_text(each, each.before, each.before_interval), figure_text(each, each.after, each.after_interval),
         "; ".join(text for text in (change_text(each), each.note) if text))
        for each in found.figures
    ]  # fmt: skip
    if rows:
        emit_table(("figure", "before", "after", "change"), rows)
    for section, title in TITLES.items():
        members = [each for each in found.differences if each.section == section]
        if members:
            emit("")
            emit_table(
                (title.lower(), "before", "after", "change"),
                [(each.field, each.before or "-", each.after or "-", each.change) for each in members],
            )
