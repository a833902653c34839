"""Which engine runs an artifact here: the one it was made for, or the next its manifest names?

Tried in the manifest's order, those of a version it was made for first. What was passed over is kept with the reason and told
wherever the model is: in the log, in its metadata, in `runtime status` and to the fleet. Nothing falls back in silence.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from runtime.backends.base import LoadedModel, get_backend
from runtime.contract.artifact import EngineRange, Fallback, Manifest, OptionValue
from runtime.errors import EngineCrashedError, EngineError, EngineMissingError, EngineUnknownError

log = logging.getLogger(__name__)

FALLBACK_CODE = "engine.fallback"
"""Code of the event that tells of a model which runs in another engine than the first."""

Load = Callable[[str, Path, Mapping[str, OptionValue]], LoadedModel]
"""Opens a model file in the engine of this name. Raises EngineError."""


class EngineInUse(NamedTuple):
    """What runs a model. passed_over: "" for the engine it was made for, else why each one before this could not run it."""

    name: str
    version: str = ""
    passed_over: str = ""
    options: Mapping[str, OptionValue] = MappingProxyType({})

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip() + (f" instead of {self.passed_over}" if self.passed_over else "")


class Opened(NamedTuple):
    """A model ready to run, and in what. is_apart: in a process of its own."""

    model: LoadedModel
    engine: EngineInUse
    is_apart: bool = False


def load_here(engine: str, model: Path, options: Mapping[str, OptionValue]) -> LoadedModel:
    """The usual way: in this process."""
    return get_backend(engine).load(model, options)


def open_engine(manifest: Manifest, directory: Path, load: Load = load_here) -> Opened:
    """Open a manifest's model in the first of its engines that can.

    An engine that is there in another version than the manifest allows is tried last: a device whose packages were renewed
    goes on serving, and says so. Raises what the only engine raised, or EngineError naming what each one lacks; a crash or a
    hang (EngineCrashedError) at once, for then it is the model that is bad.
    """
    passed_over: list[str] = []
    last_error: EngineError | None = None
    for choice, version, lack in _ordered(manifest):
        try:
            if version is None:
                get_backend(choice.engine)  # an engine that nobody knows is another error
                raise EngineMissingError(lack)
            model = load(choice.engine, directory / manifest.model_file, choice.engine_options)
        except EngineCrashedError:
            raise
        except EngineError as error:
            last_error = last_error or error
            passed_over.append(f"{choice.engine} ({lack or error})")
            continue
        if lack:
            log.warning("%s %s: %s; it is used all the same, for there is no other", manifest.model, manifest.version, lack)
        in_use = EngineInUse(choice.engine, version, ", ".join(passed_over), choice.engine_options)
        if passed_over:
            log.warning("%s %s runs in %s", manifest.model, manifest.version, in_use)
        return Opened(model, in_use)
    if last_error is None or len(passed_over) == 1:  # a manifest names one engine at least
        raise last_error or EngineMissingError(f"{manifest.model} names no engine")
    raise type(last_error)(f"no engine runs {manifest.model_file}: {', '.join(passed_over)}") from last_error


def expected_engine(manifest: Manifest) -> EngineInUse:
    """What would run it here, as far as the engines' versions tell; nothing is loaded. Raises EngineMissingError for none."""
    passed_over: list[str] = []
    for choice, version, lack in _ordered(manifest):
        if version is not None:
            return EngineInUse(choice.engine, version, ", ".join(passed_over))
        passed_over.append(f"{choice.engine} ({lack})")
    raise EngineMissingError(f"no engine for {manifest.model} {manifest.version}: {', '.join(passed_over)}")


def choices(manifest: Manifest) -> tuple[Fallback, ...]:
    """The manifest's engines in its order; the first is the one it was made for."""
    need = manifest.requires
    first = Fallback(engine=need.engine, engine_range=need.engine_range, engine_options=manifest.engine_options)
    return (first, *manifest.fallbacks)


def lack_of(choice: Fallback, version: str | None) -> str:
    """Why an engine of this version (None: not installed) is not what the choice asks for; "" when it is."""
    span = choice.engine_range
    if version is None:
        return f"{choice.engine} is not installed"
    if not is_within(version, span):
        return f"{choice.engine} is {version}, not {span.at_least} <= version < {span.below}"
    return ""


def is_within(version: str, span: EngineRange) -> bool:
    return _numbers(span.at_least) <= _numbers(version) < _numbers(span.below)


def _ordered(manifest: Manifest) -> list[tuple[Fallback, str | None, str]]:
    """Each choice with its version here (None: cannot be used) and what it lacks; those of another version come last."""
    found: list[tuple[Fallback, str | None, str]] = []
    for choice in choices(manifest):
        try:
            here = get_backend(choice.engine).probe()
        except EngineUnknownError as error:
            found.append((choice, None, str(error)))
            continue
        version = here.version if here.ok else None
        found.append((choice, version, lack_of(choice, version) if here.ok else here.reason))
    if len(found) == 1:
        return found
    return sorted(found, key=lambda one: one[1] is not None and bool(one[2]))


def _numbers(version: str) -> tuple[int, ...]:
    """The leading dotted integers of a version: "2026.4.0-19" -> (2026, 4, 0)."""
    numbers: list[int] = []
    for part in version.replace("-", ".").replace("+", ".").split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)
