"""How is this device configured, and where did each value come from?

defaults < runtime.toml < environment (EDGEWRIGHT_RUNTIME_SECTION_KEY) < flags (--set section.key=value). Everything is
typed, bounded and frozen before anything starts; an unknown key is an error that names the nearest one. This is the only
module of the daemon that reads the environment.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from runtime.errors import ConfigError, reason
from runtime.notify import Supervisor, supervisor
from runtime.serving.limits import LimitSettings, ServingSettings
from runtime.serving.stream.settings import StreamSettings

ENVIRONMENT_PREFIX = "EDGEWRIGHT_RUNTIME_"
CONFIG_VARIABLE = "EDGEWRIGHT_RUNTIME_CONFIG"
SYSTEM_CONFIG = Path("/etc/edgewright/runtime.toml")

MIB = 1024 * 1024
Bytes = Annotated[int, Meta(ge=0)]
Seconds = Annotated[int, Meta(ge=0, le=31_536_000)]
Ratio = Annotated[float, Meta(ge=0, le=1)]


class DeviceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """state_dir: identity, trust, blobs, slots and state.db; log_lines: how many the operator's `log_tail` can reach back."""

    state_dir: str = "/var/lib/edgewright"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_lines: Annotated[int, Meta(ge=0, le=100_000)] = 500


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much the outbox keeps while the fleet is out of reach; beyond either bound the oldest is dropped and counted."""

    outbox_bytes: Annotated[int, Meta(ge=64 * 1024)] = 16 * MIB
    outbox_age_s: Annotated[int, Meta(ge=1)] = 7 * 24 * 3600


class UpdateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of an update. fetch_retry_s: how long a store that sends nothing is tried again before the update fails.

    fetch_bytes_per_s: bound on a fetch's use of the network, 0 for none; fetch_timeout_s must leave it the time it then takes.
    helper_memory_bytes: cap on the self-test's process; 0 for none. reserve_bytes: stays free on the disk.
    disk_bytes: what blobs and slots may take together; memory_bytes: what this process may; 0 for no bound of ours.
    In probation more than probation_max_error_ratio of at least probation_min_requests failing means rollback, and so does
    a median latency over probation_max_latency_ratio times the previous version's; 0 for no such comparison.
    """

    helper_memory_bytes: Bytes = 1024 * MIB
    accept_timeout_s: Seconds = 60
    fetch_timeout_s: Seconds = 3600
    fetch_retry_s: Seconds = 900
    fetch_bytes_per_s: Bytes = 0
    verify_timeout_s: Seconds = 600
    test_timeout_s: Seconds = 120
    reserve_bytes: Bytes = 16 * MIB
    disk_bytes: Bytes = 0
    memory_bytes: Bytes = 0
    probation_max_error_ratio: Ratio = 0.1
    probation_max_latency_ratio: Annotated[float, Meta(ge=0, le=1000)] = 3.0
    probation_min_requests: Annotated[int, Meta(ge=1)] = 20


class ProfileSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Overrides of what the device says it is; empty values are detected. names: target profiles, best first."""

    names: tuple[str, ...] = ()
    memory_bytes: Bytes = 0


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    device: DeviceSettings = DeviceSettings()
    serving: ServingSettings = ServingSettings()
    limits: LimitSettings = LimitSettings()
    stream: StreamSettings = StreamSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    update: UpdateSettings = UpdateSettings()
    profile: ProfileSettings = ProfileSettings()

    @property
    def state_dir(self) -> Path:
        return Path(self.device.state_dir)


class Setting(msgspec.Struct, frozen=True):
    """One value with its origin: "default", "file PATH", "environment NAME" or "flag"."""

    value: Any
    origin: str


def load_config(
    path: Path | None = None, flags: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None
) -> tuple[Config, dict[str, Setting]]:
    """The configuration and, by "section.key", where each value came from. Raises ConfigError.

    path: None takes $EDGEWRIGHT_RUNTIME_CONFIG, else /etc/edgewright/runtime.toml if there is one.
    """
    environment = os.environ if environment is None else environment
    given: dict[str, Setting] = {}
    given.update(_from_file(_config_path(path, environment)))
    given.update(_from_environment(environment))
    given.update({key: Setting(value, "flag") for key, value in (flags or {}).items()})
    for key, setting in given.items():
        _require_known(key, setting.origin)
    config = _convert(given)
    return config, {key: Setting(value, given[key].origin if key in given else "default") for key, value in settings(config)}


def settings(config: Config) -> Iterator[tuple[str, Any]]:
    """Every ("section.key", value) in the order of the classes above."""
    for section in config.__struct_fields__:
        group = getattr(config, section)
        for key in group.__struct_fields__:
            yield f"{section}.{key}", getattr(group, key)


def supervised_by() -> Supervisor:
    """Who supervises this process, where anybody does."""
    return supervisor(os.environ, os.getpid())


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """["section.key=value"] as a mapping. Raises ConfigError when one has no "="."""
    flags: dict[str, str] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment}: write section.key=value")
        flags[key.strip()] = value
    return flags


def _config_path(path: Path | None, environment: Mapping[str, str]) -> Path | None:
    if path is not None:
        return path
    if named := environment.get(CONFIG_VARIABLE):
        return Path(named)
    return SYSTEM_CONFIG if SYSTEM_CONFIG.is_file() else None


def _from_file(path: Path | None) -> dict[str, Setting]:
    if path is None:
        return {}
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {reason(error)}") from error
    given: dict[str, Setting] = {}
    for section, group in document.items():
        if not isinstance(group, dict):
            raise ConfigError(f"{path}: {section!r} must be a table, such as [{_nearest(section, Config.__struct_fields__)}]")
        given.update({f"{section}.{key}": Setting(value, f"file {path}") for key, value in group.items()})
        if not group:
            _require_known(f"{section}.", f"file {path}")
    return given


def _from_environment(environment: Mapping[str, str]) -> dict[str, Setting]:
    given: dict[str, Setting] = {}
    for name, value in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX) and name != CONFIG_VARIABLE:
            section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("_")
            given[f"{section}.{key}"] = Setting(value, f"environment {name}")
    return given


def _require_known(key: str, origin: str) -> None:
    known = [name for name, _ in settings(Config())]
    section, _, _rest = key.partition(".")
    if section not in Config.__struct_fields__:
        raise ConfigError(f"{origin}: unknown section [{section}]; nearest is [{_nearest(section, Config.__struct_fields__)}]")
    if key not in known and not key.endswith("."):
        raise ConfigError(f"{origin}: unknown key {key}; nearest is {_nearest(key, known)}")


def _convert(given: Mapping[str, Setting]) -> Config:
    """Build the typed value. Text from the environment and flags is read as the type wants it; a file must have the type."""
    sections: dict[str, Any] = {}
    for section in Config.__struct_fields__:
        kind = type(getattr(Config(), section))
        values: dict[str, Any] = {}
        for key in kind.__struct_fields__:
            if setting := given.get(f"{section}.{key}"):
                values[key] = _convert_one(kind, section, key, setting)
        sections[section] = kind(**values)
    return Config(**sections)


def _convert_one(kind: type[msgspec.Struct], section: str, key: str, setting: Setting) -> Any:
    is_text = not setting.origin.startswith("file") and isinstance(setting.value, str)
    value = setting.value
    if is_text and isinstance(getattr(kind(), key), tuple):
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        return getattr(msgspec.convert({key: value}, kind, strict=not is_text), key)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{setting.origin}: {section}.{key} = {setting.value!r}: {str(error).split(' - at')[0]}") from error


def _nearest(name: str, known: tuple[str, ...] | list[str]) -> str:
    from difflib import get_close_matches  # costs 3 ms, needed for mistakes only

    return (get_close_matches(name, known, n=1, cutoff=0.0) or [known[0]])[0]
