"""`fleet init`: make the home of a new fleet."""

from pathlib import Path
from typing import Annotated

import typer

from fleet.cli.options import HomeOption, JsonOption, new_app, open_config
from fleet.cli.output import emit, emit_json
from fleet.errors import ConfigError

app = new_app()


@app.command()
def init(
    root: Annotated[
        Path, typer.Option("--root", metavar="FILE", help="Public trust root: root.json of `toolchain keys create`.")
    ],
    *,
    home: HomeOption = None,
    name: Annotated[str | None, typer.Option("--name", help="The fleet's name, part of every topic.")] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address that door and broker bind, and devices dial.")] = None,
    api_port: Annotated[int | None, typer.Option("--api-port", help="Port of API and dashboard.")] = None,
    door_port: Annotated[int | None, typer.Option("--door-port", help="Port of the device door.")] = None,
    broker_port: Annotated[int | None, typer.Option("--broker-port", help="Port of the broker.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Import the public root; make the service's keys, its certificate authority, its database and an admin token."""
    from fleet.setup import initialise

    flags = {
        "fleet.name": name,
        "door.host": host,
        "door.names": host,
        "broker.host": host,
        "api.port": api_port,
        "door.port": door_port,
        "broker.port": broker_port,
    }
    config, _ = open_config(None, home, flags)
    try:
        root_json = root.read_bytes()
    except OSError as error:
        raise ConfigError(f"--root {root}: {error.strerror}; `toolchain keys create` makes one") from error
    token_file = initialise(config, root_json)
    if as_json:
        emit_json({"fleet": config.fleet.name, "home": str(config.home), "token_file": str(token_file), "url": config.api_url})
        return
    emit(f"fleet {config.fleet.name} is ready in {config.home}; the admin's API token lies in {token_file}")
    emit(f"next: fleet serve --home {config.home}")
    emit(f"then: toolchain keys authorize --to {config.api_url} --token-file {token_file}")
