"""What is a stage, and when does it run again?

A stage is a value: what it is called, everything that decides its result, and the function that makes it. Its key is the digest
of the former, so equal keys mean equal results; the output's own digest is what later stages see, so a stage that ran again to
the same result makes nobody else run.
"""

import functools
import hashlib
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from runtime.contract.errors import ContractError
from runtime.errors import DaemonError
from toolchain.errors import BuildError, StageError
from toolchain.pipeline.cache import FILES_NAME, Entry, StageCache
from toolchain.pipeline.progress import Forecaster, Progress
from toolchain.pipeline.record import StageRun

T = TypeVar("T")
P = TypeVar("P")

VERSION = "version of "
ABSENT = "absent"


class Stored(msgspec.Struct, Generic[T], frozen=True):
    """A stage's result: its value, the folder its files lie in (read-only), and the digest of its contents."""

    value: T
    folder: Path
    digest: str

    def part(self, value: P, digest: str) -> "Stored[P]":
        """One part of the result under its own digest, for stages that must depend on nothing else of it."""
        return Stored(value, self.folder, digest)


Make = Callable[[Path, Progress], Any]
"""Writes files into the given empty folder and returns the value. Never writes elsewhere, never alters its inputs."""


class Stage(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One step. inputs: name -> content digest; tools: distributions whose versions decide the result.

    revision rises whenever the code of the step changes what it makes. summary: one short line about the result.
    """

    name: str
    revision: int
    kind: type[T]
    make: Make
    config: Mapping[str, Any] = {}
    inputs: Mapping[str, str] = {}
    tools: tuple[str, ...] = ()
    target: str = ""
    seed: int | None = None
    summary: Callable[[T], str] = lambda _: ""

    def ingredients(self) -> dict[str, Any]:
        """Everything the key is made of, as plain JSON types."""
        versions = {f"{VERSION}{tool}": tool_version(tool) for tool in ("edgewright", *self.tools)}
        config = {f"config {name}": msgspec.to_builtins(value) for name, value in self.config.items()}
        inputs = {f"input {name}": digest for name, digest in self.inputs.items()}
        fixed = {
            "stage": self.name, "revision": self.revision, "target": self.target, "seed": self.seed, "form": form_of(self.kind),  # type: ignore[arg-type]  # a class is hashable
        }  # fmt: skip
        # Through JSON and back, so that they compare equal with those of a record.
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(fixed | config | inputs | versions))
        return plain


class Runner:
    """Executes stages against the cache and keeps the list of what ran and why."""

    def __init__(self, cache: StageCache, progress: Progress, project: str) -> None:
        self.cache = cache
        self.progress = progress
        self.project = project
        self.runs: list[StageRun] = []
        self.environment: dict[str, str] = {}

    def execute(self, stage: Stage[T], *, distrust: str = "", settle: Callable[[], Stage[T]] | None = None) -> Stored[T]:
        """The stage's result, from the cache if its key is known there.

        distrust: why a known key must run anyway. settle: asked for the stage again once it ran, where only the run shows
        what it depends on (data sources); the result is then kept under that stage's key.
        """
        ingredients = stage.ingredients()
        key = digest_of(ingredients)
        entry, problem = self.cache.get(key)
        if problem:
            self.progress.note(f"{stage.name}: {problem}; making it again")
        if entry is not None and not distrust:
            return self._reuse(stage, entry)
        why = problem or (distrust if entry is not None else self._why(stage.name, ingredients))
        if isinstance(self.progress, Forecaster):
            last = self.cache.last(self.project, stage.name)
            self.progress.expect(last.seconds if last else None)
        self.progress.stage(stage.name, ran=True, why=why)
        entry = self._make(stage, settle, replace=bool(distrust))
        stored = self._open(stage, entry)
        self.progress.done(stage.name, entry.record.seconds, stage.summary(stored.value))
        return self._note(stage, entry, stored, ran=True, why=why)

    def _reuse(self, stage: Stage[T], entry: Entry) -> Stored[T]:
        try:
            stored = self._open(stage, entry)
        except msgspec.ValidationError as error:
            raise StageError(
                f"{stage.name}: its cached result has another form ({error}); run `toolchain cache gc --all`"
            ) from error
        why = "nothing it depends on changed"
        self.progress.stage(stage.name, ran=False, why=why)
        return self._note(stage, entry, stored, ran=False, why=why)

    def _make(self, stage: Stage[T], settle: Callable[[], Stage[T]] | None, *, replace: bool) -> Entry:
        started = time.monotonic()
        with self.cache.workdir() as work:
            try:
                value = stage.make(work / FILES_NAME, self.progress)
            except (BuildError, ContractError, DaemonError, ImportError):
                raise
            except Exception as error:
                raise StageError(f"stage {stage.name}: {type(error).__name__}: {error}") from error
            seconds = time.monotonic() - started
            ingredients = (settle() if settle else stage).ingredients()
            return self.cache.put(
                work, name=stage.name, key=digest_of(ingredients), ingredients=ingredients,
                value=msgspec.json.encode(value, order="deterministic"), seconds=seconds, replace=replace,
            )  # fmt: skip

    def _open(self, stage: Stage[T], entry: Entry) -> Stored[T]:
        return Stored(msgspec.json.decode(entry.record.value, type=stage.kind), entry.files, entry.record.output)

    def _note(self, stage: Stage[T], entry: Entry, stored: Stored[T], *, ran: bool, why: str) -> Stored[T]:
        record = entry.record
        self.cache.set_last(self.project, stage.name, record.key)
        versions = {name: str(value) for name, value in record.ingredients.items() if name.startswith(VERSION)}
        self.environment |= {name.removeprefix(VERSION): value for name, value in versions.items()}
        seconds = round(record.seconds, 3)
        self.runs.append(StageRun(name=stage.name, key=record.key, output=stored.digest, ran=ran, why=why, seconds=seconds))
        return stored

    def _why(self, name: str, ingredients: dict[str, Any]) -> str:
        last = self.cache.last(self.project, name)
        if last is None:
            return "first run"
        return changes(last.ingredients, ingredients) or "its result was dropped from the cache"


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two sets of ingredients, in words: "config epochs 12 -> 15, input data changed"."""
    texts = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if name.startswith("input "):
            texts.append(f"{name.removeprefix('input ')} changed")
        else:
            texts.append(f"{name.removeprefix('config ')} {_short(before)} -> {_short(after)}")
    return ", ".join(texts)


def digest_of(value: Any) -> str:
    """sha256 of plain data, the same for equal data whatever the order of its keys."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


@functools.cache
def form_of(kind: type[Any]) -> str:
    """Digest of a product's fields and their types: a result in another form is another result, though an old one might decode."""
    return digest_of(_undescribed(msgspec.json.schema(kind)))


def _undescribed(schema: Any) -> Any:
    """Without the docstrings, which change no result."""
    if isinstance(schema, dict):
        return {
            name: _undescribed(part) for name, part in schema.items() if not (name == "description" and isinstance(part, str))
        }
    return [_undescribed(part) for part in schema] if isinstance(schema, list) else schema


@functools.cache
def tool_version(distribution: str) -> str:
    """The installed version, or ABSENT: an engine that is installed later makes its stages run."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ABSENT


def _short(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 40 else f"{text[:37]}..."
