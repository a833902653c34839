"""Which settings does the toolchain itself have, and where did each value come from?

Defaults < file < environment < flags. The file is $EDGEWRIGHT_CONFIG, else ~/.config/edgewright/toolchain.toml; what a
build does stands in its recipe, not here. This is the one module of the toolchain that reads the environment.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from toolchain.errors import UsageError

CONFIG_VARIABLE = "EDGEWRIGHT_CONFIG"
PASSPHRASE_VARIABLE = "EDGEWRIGHT_KEY_PASSPHRASE"


class Setting(msgspec.Struct, frozen=True):
    """One setting: its key in the file, its environment variable, its default ("~" is the home folder) and what it is."""

    key: str
    variable: str
    default: str
    what: str
    is_path: bool = False


SETTINGS = (
    Setting("cache", "EDGEWRIGHT_CACHE", "~/.cache/edgewright", "folder of the stage cache", True),
    Setting(
        "tracking",
        "EDGEWRIGHT_TRACKING",
        "sqlite:///~/.local/share/edgewright/mlflow.db",
        "MLflow tracking store: sqlite:///FILE or http(s)://SERVER; off disables it",
    ),
    Setting("keys", "EDGEWRIGHT_KEYS", "~/.config/edgewright/keys", "folder of signing keys and trust root", True),
    Setting("fleet", "EDGEWRIGHT_FLEET", "", "address of the fleet service, such as http://127.0.0.1:8080"),
    Setting("token_file", "EDGEWRIGHT_TOKEN_FILE", "", "file holding the fleet's API token", True),
)


class Value(msgspec.Struct, frozen=True):
    """A setting's value in force. origin: "default", "file PATH", "environment NAME" or "flag --NAME"."""

    value: str
    origin: str


Config = dict[str, Value]


def load_config(flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """Every setting by key. flags: those given on the command line, None where absent. Raises UsageError."""
    environment = os.environ if environment is None else environment
    file = Path(environment.get(CONFIG_VARIABLE) or _home("~/.config/edgewright/toolchain.toml", environment))
    written = _read(file, is_required=CONFIG_VARIABLE in environment)
    config: Config = {}
    for setting in SETTINGS:
        value = Value(setting.default, "default")
        if setting.key in written:
            value = Value(written[setting.key], f"file {file}")
        if environment.get(setting.variable):
            value = Value(environment[setting.variable], f"environment {setting.variable}")
        if flags and flags.get(setting.key) is not None:
            value = Value(str(flags[setting.key]), f"flag --{setting.key.replace('_', '-')}")
        config[setting.key] = Value(_home(value.value, environment), value.origin)
    return config


def setting_path(key: str, flag: Path | None = None) -> Path:
    """A path-valued setting. Raises UsageError when it has no value."""
    value = load_config({key: flag})[key].value
    if not value:
        raise UsageError(f"--{key.replace('_', '-')} is needed")
    return Path(value)


def key_passphrase() -> str | None:
    """Opens and encrypts signing keys; only ever from the environment, so that no file or process list shows it."""
    return os.environ.get(PASSPHRASE_VARIABLE) or None


def _read(file: Path, *, is_required: bool) -> dict[str, str]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if is_required:
            raise UsageError(f"{file}: no such file, though {CONFIG_VARIABLE} names it") from error
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{file}: not readable as TOML: {error}") from error
    known = [setting.key for setting in SETTINGS]
    for key, value in document.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            raise UsageError(
                f"{file}: {key}: unknown key; " + (f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}")
            )
        if not isinstance(value, str):
            raise UsageError(f"{file}: {key}: expected a string, got {value!r}")
    return document


def _home(value: str, environment: Mapping[str, str]) -> str:
    """Put the home folder where a path, or the file of a store's address, begins with ~."""
    scheme, separator, rest = value.rpartition(":///")
    if not rest.startswith("~/"):
        return value
    return scheme + separator + (environment.get("HOME") or str(Path.home())) + rest[1:]
