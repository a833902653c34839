"""`fleet token`: let devices in, and people and programs use the API."""

import enum
from typing import Annotated

import typer

from fleet.cli.options import HomeOption, JsonOption, TokenFileOption, UrlOption, new_app, open_client, pairs
from fleet.cli.output import emit, emit_json

app = new_app("Make tokens that let devices in, or people and programs use the API.")

LabelOption = Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label the device will have.")]


class Role(enum.StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


@app.command()
def enrol(
    *,
    device: Annotated[str | None, typer.Option("--device", help="The only id it is good for; default: any.")] = None,
    label: LabelOption = None,
    ttl_s: Annotated[int, typer.Option("--ttl", metavar="SECONDS", help="How long it is good for.")] = 3600,
    home: HomeOption = None,
    url: UrlOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """A one-time token for `runtime enroll`. It is printed once and cannot be shown again."""
    with open_client(home, url, token_file) as client:
        token = client.create_enrolment(device=device, labels=pairs(label, "--label"), ttl_s=ttl_s)
    emit_json({"token": token, "device": device}) if as_json else emit(token)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who it is for; the audit log shows it.")],
    *,
    role: Annotated[Role, typer.Option("--role", help="What it allows.")] = Role.VIEWER,
    ttl_s: Annotated[
        int | None, typer.Option("--ttl", metavar="SECONDS", help="How long it is good for; default: for ever.")
    ] = None,
    home: HomeOption = None,
    url: UrlOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """An API token for a person or a program. It is printed once and cannot be shown again."""
    with open_client(home, url, token_file) as client:
        made = client.create_token(name, role.value, ttl_s=ttl_s)
    emit_json(made) if as_json else emit(made["token"])
