"""How is the service set up, and where does each value come from?

Defaults < `fleet.toml` < environment (`EDGEWRIGHT_FLEET_API_PORT` for `port` in `[api]`, `EDGEWRIGHT_FLEET_NAME` for `name` in
`[fleet]`) < flags. Unknown keys and bad values are errors that name the nearest valid key. Frozen once loaded. This is the
one module of the service that reads the environment.
"""

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from fleet.errors import ConfigError

CONFIG_NAME = "fleet.toml"
ENVIRONMENT_PREFIX = "EDGEWRIGHT_FLEET_"

URL_VARIABLE = "EDGEWRIGHT_FLEET"
TOKEN_VARIABLE = "EDGEWRIGHT_TOKEN_FILE"
"""The same names as the toolchain's: one setting serves `toolchain publish` and `fleet rollout`."""

Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[int, Meta(ge=1)]
Bytes = Annotated[int, Meta(ge=1)]
FleetName = Annotated[str, Meta(pattern=r"\A[a-z0-9-]{1,40}\Z")]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of `fleet.toml`."""


class FleetSection(Section, frozen=True):
    """name: part of every topic. home: where state lives ("" = the folder of fleet.toml). database: URL ("" = HOME/fleet.db)."""

    name: FleetName = "edge"
    home: str = ""
    database: str = ""


class ApiSection(Section, frozen=True):
    """Where people and programs reach the service. Loopback until TLS is set up in front of it."""

    host: str = "127.0.0.1"
    port: Port = 8080


class DoorSection(Section, frozen=True):
    """Where devices reach the service (mutual TLS). names: what its certificate is for; devices dial the first."""

    host: str = "127.0.0.1"
    port: Port = 8443
    names: Annotated[tuple[str, ...], Meta(min_length=1)] = ("127.0.0.1", "localhost")


class BrokerSection(Section, frozen=True):
    """mode "supervised": this service runs `program` with a configuration of its own; "external": one that runs already.

    host: what a supervised broker binds, or where the external one listens; devices are told the door's first name when
    supervised, else this host. program: "" finds mosquitto on PATH and in the sbin folders.
    """

    mode: Literal["supervised", "external"] = "supervised"
    host: str = "127.0.0.1"
    port: Port = 8883
    program: str = ""


class DefaultsSection(Section, frozen=True):
    """What a device is told unless it has settings of its own, and how long a desired state may start updates."""

    window_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    probation_s: Annotated[int, Meta(ge=0, le=86_400)] = 30
    desired_ttl_s: Annotated[int, Meta(ge=60)] = 7 * 24 * 3600


class SchedulerSection(Section, frozen=True):
    """step_ms: pause between two looks at the rollouts; evaluate_ms: least time between two stored gate evaluations."""

    step_ms: Annotated[int, Meta(ge=50, le=60_000)] = 500
    evaluate_ms: Annotated[int, Meta(ge=50, le=600_000)] = 2_000
    drift_ms: Annotated[int, Meta(ge=50, le=3_600_000)] = 5_000


class LimitsSection(Section, frozen=True):
    """Bounds on what the service takes in. body_bytes: a JSON request; blob_bytes: one payload file."""

    body_bytes: Bytes = 16 * 1024 * 1024
    blob_bytes: Bytes = 4 * 1024 * 1024 * 1024
    stream_clients: Annotated[int, Meta(ge=1)] = 200


class RetentionSection(Section, frozen=True):
    """How long telemetry is kept after its arrival."""

    windows_days: Annotated[int, Meta(ge=1, le=3650)] = 30
    events_days: Annotated[int, Meta(ge=1, le=3650)] = 90


class Config(Section, frozen=True):
    """The whole configuration; `home` is resolved. Build it with `load`."""

    fleet: FleetSection = FleetSection()
    api: ApiSection = ApiSection()
    door: DoorSection = DoorSection()
    broker: BrokerSection = BrokerSection()
    defaults: DefaultsSection = DefaultsSection()
    scheduler: SchedulerSection = SchedulerSection()
    limits: LimitsSection = LimitsSection()
    retention: RetentionSection = RetentionSection()

    @property
    def home(self) -> Path:
        return Path(self.fleet.home)

    @property
    def database_url(self) -> str:
        return self.fleet.database or f"sqlite:///{self.home / 'fleet.db'}"

    @property
    def api_url(self) -> str:
        """Where a program on this machine reaches the API."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.api.host, self.api.host)
        return f"http://[{host}]:{self.api.port}" if ":" in host else f"http://{host}:{self.api.port}"


class Setting(msgspec.Struct, frozen=True):
    """One value with its origin: "default", the file's path, "environment VARIABLE" or "flag"."""

    key: str
    value: Any
    origin: str


def load(
    path: Path | None = None, flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> tuple[Config, list[Setting]]:
    """The configuration and where each value came from. flags: by dotted key, such as {"api.port": 9000}.

    path: None takes HOME/fleet.toml, where HOME is `EDGEWRIGHT_FLEET_HOME` or ~/.local/share/edgewright/fleet; only a path
    given explicitly must exist. Raises ConfigError naming file, key and nearest valid key.
    """
    environment = os.environ if environment is None else environment
    file = path or default_home(environment) / CONFIG_NAME
    merged: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}

    def overlay(section: str, key: str, value: Any, origin: str) -> None:
        _require_known(section, key, origin)
        merged.setdefault(section, {})[key] = value
        origins[f"{section}.{key}"] = origin

    for section, table in _read_toml(file, required=path is not None).items():
        if not isinstance(table, dict):
            raise ConfigError(f"{file}: {section} stands outside a section; put it under one of {_names(Config)}")
        _require_section(section, str(file))
        for key, value in table.items():
            overlay(section, key, value, str(file))
    for section, key, variable in _variables():
        if variable in environment:
            overlay(section, key, environment[variable], f"environment {variable}")
    for dotted, value in (flags or {}).items():
        if value is not None:
            overlay(*_split(dotted), value, "flag")
    merged.setdefault("fleet", {})
    if not merged["fleet"].get("home"):
        merged["fleet"]["home"] = str(file.parent.absolute())
        origins.setdefault("fleet.home", f"folder of {file}")
    config = _convert(merged, origins)
    return config, _settings(config, origins)


def default_home(environment: Mapping[str, str]) -> Path:
    given = environment.get(f"{ENVIRONMENT_PREFIX}HOME")
    return Path(given) if given else Path.home() / ".local" / "share" / "edgewright" / "fleet"


def find_credentials(
    config: Callable[[], Config], url: str | None, token_file: Path | None, environment: Mapping[str, str] | None = None
) -> tuple[str, Path]:
    """Where a command reaches the service, and the file with its token: flags, then environment, then the local home.

    config: read only when the flags and the environment leave something open.
    """
    environment = os.environ if environment is None else environment
    address = url or environment.get(URL_VARIABLE)
    file = str(token_file or "") or environment.get(TOKEN_VARIABLE)
    return address or config().api_url, Path(file) if file else config().home / "admin.token"


def _read_toml(file: Path, required: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not required:
            return {}
        raise ConfigError(f"{file}: no such file; `fleet init --home {file.parent}` makes one") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error


def _sections() -> dict[str, type[Section]]:
    return {field.name: field.type for field in msgspec.structs.fields(Config)}


def _names(kind: type[Section]) -> str:
    return ", ".join(kind.__struct_fields__)


def _variables() -> list[tuple[str, str, str]]:
    names = []
    for section, kind in _sections().items():
        middle = "" if section == "fleet" else f"{section.upper()}_"
        names += [(section, key, f"{ENVIRONMENT_PREFIX}{middle}{key.upper()}") for key in kind.__struct_fields__]
    return names


def _split(dotted: str) -> tuple[str, str]:
    section, _, key = dotted.partition(".")
    return section, key


def _require_section(section: str, origin: str) -> None:
    if section not in _sections():
        raise ConfigError(f"{origin}: unknown section [{section}]{_nearest(section, list(_sections()))}")


def _require_known(section: str, key: str, origin: str) -> None:
    _require_section(section, origin)
    keys = _sections()[section].__struct_fields__
    if key not in keys:
        raise ConfigError(f"{origin}: unknown key {key} in [{section}]{_nearest(key, keys)}")


def _nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


def _convert(merged: dict[str, dict[str, Any]], origins: dict[str, str]) -> Config:
    """Check types and bounds value by value, so that the message can name the key and who set it."""
    sections: dict[str, Section] = {}
    for section, kind in _sections().items():
        values = {}
        types = {field.name: field.type for field in msgspec.structs.fields(kind)}
        for key, value in merged.get(section, {}).items():
            origin = origins[f"{section}.{key}"]
            is_text = origin.startswith(("environment", "flag"))  # there a number can only be written as text
            spelled = _parse_text(value, types[key]) if is_text else value
            try:
                values[key] = msgspec.convert(spelled, types[key], strict=not is_text)
            except msgspec.ValidationError as error:
                raise ConfigError(f"{origin}: {section}.{key} = {value!r}: {error}") from error
        sections[section] = kind(**values)
    return Config(**sections)  # type: ignore[arg-type]


def _parse_text(value: Any, kind: Any) -> Any:
    """A list in the environment or a flag is written with commas."""
    is_list = "tuple" in str(kind)
    return [part.strip() for part in value.split(",") if part.strip()] if is_list and isinstance(value, str) else value


def _settings(config: Config, origins: dict[str, str]) -> list[Setting]:
    return [
        Setting(f"{section}.{key}", getattr(getattr(config, section), key), origins.get(f"{section}.{key}", "default"))
        for section, kind in _sections().items()
        for key in kind.__struct_fields__
    ]
