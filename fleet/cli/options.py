"""Which options do the commands share, and how are they turned into a configuration or a client?"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleet.config import CONFIG_NAME, Config, Setting, find_credentials, load
from fleet.errors import ConfigError

if TYPE_CHECKING:
    from fleet.client import Client

HomeOption = Annotated[Path | None, typer.Option("--home", metavar="DIR", help="The fleet's home.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="fleet.toml; default: in the home.")]
UrlOption = Annotated[str | None, typer.Option("--url", metavar="URL", help="The service; default: from the home's fleet.toml.")]
TokenFileOption = Annotated[
    Path | None, typer.Option("--token-file", metavar="FILE", help="File with an API token; default: the home's admin.token.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def new_app(help: str | None = None) -> typer.Typer:
    """help: of a group of commands; a single command brings its own docstring. rich would cost 0.3 s of start-up."""
    return typer.Typer(
        help=help,
        no_args_is_help=help is not None,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def open_config(config: Path | None, home: Path | None, flags: Mapping[str, Any] | None = None) -> tuple[Config, list[Setting]]:
    """The configuration of one home. --home alone reads the fleet.toml in it, when there is one."""
    if config is None and home is not None and (home / CONFIG_NAME).exists():
        config = home / CONFIG_NAME
    return load(config, {**(flags or {}), "fleet.home": None if home is None else str(home.absolute())})


@contextmanager
def open_client(home: Path | None, url: str | None, token_file: Path | None) -> "Iterator[Client]":
    """A client of the service with the best credential at hand. Raises ConfigError or ApiError."""
    from fleet.client import Client

    address, file = find_credentials(lambda: open_config(None, home)[0], url, token_file)
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or error
        raise ConfigError(f"no API token in {file} ({cause}); name one with --token-file, or the home with --home") from error
    with Client(address, token) as client:
        yield client


def pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """key=value options as a dictionary. Raises ConfigError."""
    found = {}
    for text in given or []:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise ConfigError(f"{option} {text!r}: write it as key=value")
        found[key] = value
    return found
