"""`fleet alert`: what needs attention."""

from typing import Annotated

import typer

from fleet.cli.options import HomeOption, JsonOption, TokenFileOption, UrlOption, new_app, open_client
from fleet.cli.output import emit_json, emit_table, moment

app = new_app("What needs attention.")


@app.callback()
def group() -> None:
    """What needs attention."""


@app.command("list")
def list_(
    *,
    all_: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
    home: HomeOption = None,
    url: UrlOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open alerts, newest first."""
    with open_client(home, url, token_file) as client:
        found = [alert for alert in client.alerts() if all_ or alert["closed_ms"] is None]
    if as_json:
        emit_json(found)
    else:
        emit_table(
            ("id", "opened", "closed", "alert"),
            [(alert["id"], moment(alert["opened_ms"]), moment(alert["closed_ms"]), alert["title"]) for alert in found],
        )
