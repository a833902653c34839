"""`toolchain doctor`: what can this host do, and why not the rest?"""

from pathlib import Path

import typer

from toolchain.cli.app import JsonOption, new_app
from toolchain.cli.output import emit_json, emit_table
from toolchain.errors import EXIT_MISSING

app = new_app()


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what this host can train, convert, run and measure for, and what is missing. Exit 5 when it cannot build."""
    from toolchain.doctor import examine, is_fit

    findings = examine(Path.cwd())
    if as_json:
        emit_json(findings)
    else:
        emit_table(("", "", "", ""), [("yes" if each.ok else "no", each.area, each.name, each.detail) for each in findings])
    if not is_fit(findings):
        raise typer.Exit(EXIT_MISSING)
