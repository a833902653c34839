"""What were two artifacts made from, key by key, as far as the report beside each can still tell?

A manifest names recipe, data, code and versions by digest only; `report.json`, which the build wrote beside the artifacts, has
them in full. It is believed where it speaks of this very manifest, and is only for reading: nothing is decided by it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from toolchain.package.read import Artifact

REPORT_NAME = "report.json"
REPORT_LIMIT = 32 * 1024 * 1024
"""Bytes; a report of six targets with all their trials has two."""
MOST_NAMES = 6


class DropFigure(msgspec.Struct, frozen=True):
    """As `pipeline.record.DropResult`; a report of another version may have more."""

    value: float
    low: float
    high: float


class ReportedVariant(msgspec.Struct, frozen=True):
    name: str
    form: str = ""
    scheme: str = ""
    precision: str = ""


class ReportedTarget(msgspec.Struct, frozen=True):
    target: str
    manifest_sha256: str
    variants: tuple[ReportedVariant, ...] = ()
    drop: DropFigure | None = None
    resolution: float = 0.0


class ReportedStage(msgspec.Struct, frozen=True):
    name: str
    key: str


class ReportedData(msgspec.Struct, frozen=True):
    fingerprint: str = ""
    sizes: dict[str, int] = {}


class Origin(msgspec.Struct, frozen=True):
    """The parts of a report that say what an artifact was made from."""

    recipe: dict[str, Any]
    targets: tuple[ReportedTarget, ...]
    stages: tuple[ReportedStage, ...] = ()
    environment: dict[str, str] = {}
    data: ReportedData = ReportedData()

    def target(self, manifest_sha256: str) -> ReportedTarget | None:
        return next((each for each in self.targets if each.manifest_sha256 == manifest_sha256), None)


Change = tuple[str, str, str]
"""What, before, after."""


def origin_of(artifact: Artifact) -> tuple[Origin | None, str]:
    """What the report in the release directory says of this artifact, or None and why it cannot be used."""
    path = artifact.path.absolute().parent / REPORT_NAME
    try:
        with path.open("rb") as stream:
            raw = stream.read(REPORT_LIMIT + 1)
        if len(raw) > REPORT_LIMIT:
            return None, f"{path} is larger than {REPORT_LIMIT} bytes"
        origin = msgspec.json.decode(raw, type=Origin)
    except FileNotFoundError:
        return None, f"{path} is not there"
    except (OSError, msgspec.MsgspecError) as error:
        return None, f"{path} cannot be read: {error}"
    if origin.target(artifact.manifest.sha256) is None:
        return None, f"{path} speaks of another build"
    return origin, ""


def recipe_changes(before: Origin, after: Origin) -> Iterator[Change]:
    """Keys of the recipes whose values differ, defaults included; the version itself is no difference."""
    yield from _changes(_flat(before.recipe), _flat(after.recipe), leave_out=("model.version",))


def version_changes(before: Origin, after: Origin) -> Iterator[Change]:
    yield from _changes(before.environment, after.environment)


def size_changes(before: Origin, after: Origin) -> Iterator[Change]:
    """Examples per split."""
    for name, old, new in _changes(before.data.sizes, after.data.sizes):
        yield f"{name} examples", old, new


def changed_stages(before: Origin, after: Origin) -> tuple[int, str]:
    """How many of the stages both have got another key, and which, in the order they ran: "train, pack x and 12 more"."""
    old = {stage.name: stage.key for stage in before.stages}
    names = [stage.name for stage in after.stages if old.get(stage.name, stage.key) != stage.key]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return len(names), ", ".join(names[:MOST_NAMES]) + more


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], leave_out: tuple[str, ...] = ()) -> Iterator[Change]:
    for key in sorted(before.keys() | after.keys()):
        old, new = _text(before.get(key)), _text(after.get(key))
        if old != new and key not in leave_out:
            yield key, old, new


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys, as `--set` spells them; a list of plain values stays one value."""
    if isinstance(value, dict):
        return {key: item for name, inner in value.items() for key, item in _flat(inner, f"{prefix}{name}.").items()}
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return {key: item for index, inner in enumerate(value) for key, item in _flat(inner, f"{prefix}{index}.").items()}
    return {prefix.removesuffix("."): value}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
