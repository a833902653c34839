"""Which options do the commands that sign or talk to a fleet share, and how are they turned into objects?"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolchain.config import key_passphrase, load_config, setting_path
from toolchain.errors import UsageError

if TYPE_CHECKING:
    from fleet.client import Client
    from toolchain.package.keys import KeyFolder

KeysOption = Annotated[Path | None, typer.Option("--keys", metavar="DIR", help="Folder of signing keys and trust root.")]
FleetOption = Annotated[str | None, typer.Option("--to", metavar="URL", help="Address of the fleet service.")]
TokenOption = Annotated[Path | None, typer.Option("--token-file", metavar="FILE", help="File holding the fleet's API token.")]


def open_keys(folder: Path | None) -> "KeyFolder":
    from toolchain.package.keys import KeyFolder

    return KeyFolder(setting_path("keys", folder), key_passphrase())


@contextmanager
def open_fleet(url: str | None, token_file: Path | None) -> "Iterator[Client]":
    """A client of the fleet. Raises UsageError when its address or token cannot be had."""
    from fleet.client import ApiError, Client

    config = load_config({"fleet": url, "token_file": token_file})
    address = config["fleet"].value
    if not address:
        raise UsageError("no fleet named: give its address, such as http://127.0.0.1:8080, or set EDGEWRIGHT_FLEET")
    try:
        client = Client(address, _token(config["token_file"].value))
    except ApiError as error:
        raise UsageError(error.detail) from error
    with client:
        yield client


def _token(file: str) -> str | None:
    if not file:
        return None
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file {file}: {error}") from error
