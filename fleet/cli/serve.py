"""`fleet serve`: run the service."""

import asyncio
import enum
import logging
from typing import Annotated

import typer

from fleet.cli.options import ConfigOption, HomeOption, new_app, open_config
from fleet.cli.output import say

app = new_app()


class Role(enum.StrEnum):
    """Which parts this process runs."""

    ALL = "all"


@app.command()
def serve(
    *,
    config: ConfigOption = None,
    home: HomeOption = None,
    role: Annotated[Role, typer.Option("--role", help="Which parts to run.")] = Role.ALL,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what is done, not only what is wrong.")] = False,
) -> None:
    """Run until told to end (Ctrl-C or SIGTERM). A service that was killed goes on where it was."""
    from fleet.service import serve as run_service

    settings, _ = open_config(config, home)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )

    def ready() -> None:
        door, broker = settings.door, settings.broker
        say(f"fleet {settings.fleet.name} ({role}): dashboard and API at {settings.api_url}")
        say(f"devices come in at https://{door.names[0]}:{door.port}, broker ({broker.mode}) at {broker.host}:{broker.port}")

    asyncio.run(run_service(settings, ready))
