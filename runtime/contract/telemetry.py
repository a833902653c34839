"""What does a device tell about the inferences it served, without ever sending one?

A window is counts over N seconds of one model: unsigned integers only, so windows merge exactly, in any order. The names
and boundaries behind the counts come from the artifact's reference with the same `edges` digest.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from runtime.contract.artifact import ArtifactRef, Count, Name, Sha256
from runtime.contract.canonical import (
    INFLATED_TELEMETRY_LIMIT,
    TELEMETRY_LIMIT,
    Received,
    deflate,
    inflate,
    read_message,
    write_message,
)
from runtime.contract.deployment import Role
from runtime.contract.errors import MalformedError, TooLargeError
from runtime.contract.version import REFERENCE_SCHEMA, require_readable

CELLS = 32
"""Cells per stream: 26 between quantiles and 3 in each tail (measured: KS error .0009; 32 plain quantiles miss the tails)."""
CONFIDENCE_CELLS = 20
"""Equal cells over [0, 1]."""
LATENCY_CELLS_PER_OCTAVE = 8
"""Latency cell k holds 2**(k/8) <= microseconds < 2**((k+1)/8), so a quantile is known within 9 %; cell 0 also all below."""
LATENCY_CELLS = 216


class StreamCounts(msgspec.Struct, frozen=True, array_like=True):
    """One feature or output over the window: cells + missing + out_of_range = the rows seen.

    missing: NaN or absent; out_of_range: infinite, or outside the range the manifest declares.
    """

    cells: tuple[Count, ...]
    missing: Count = 0
    out_of_range: Count = 0


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How a shadow's answers compare with the active version's on the same inputs, in examples.

    sampled: chosen by the share; compared + dropped + failed = sampled (dropped: the CPU budget was spent or too many waited;
    failed: the shadow gave no answer). agreed: of those compared, the same class, or for other outputs within 5 % of the
    active answer's size (L2 norm of the difference against that of the answer).
    """

    sampled: Count = 0
    compared: Count = 0
    agreed: Count = 0
    dropped: Count = 0
    failed: Count = 0


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of the `telemetry` topic. start: Unix milliseconds by the device's clock; latency: log cell -> requests.

    rows: examples monitored; dropped_rows: examples served but not monitored, because the budget was spent.
    classes: predictions per class; confidence: predictions per confidence cell; both empty where the model has none.
    agreement: of a shadow, None for any other role.
    """

    device: Name
    boot: Count
    seq: Count
    model: Name
    artifact: ArtifactRef
    role: Role = "active"
    edges: Sha256
    start_ms: Count
    duration_ms: Count
    clock_synced: bool
    requests: Count = 0
    errors: Count = 0
    rows: Count = 0
    dropped_rows: Count = 0
    streams: tuple[StreamCounts, ...] = ()
    classes: tuple[Count, ...] = ()
    confidence: tuple[Count, ...] = ()
    latency: dict[Count, Count] = {}
    resources: dict[str, Count] = {}
    agreement: Agreement | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of the `event` topic: one step of an update, an alarm, a refusal. code: stable and dotted, "" for progress."""

    device: Name
    boot: Count
    seq: Count
    at_ms: Count
    clock_synced: bool
    kind: str
    code: str = ""
    model: str = ""
    artifact: ArtifactRef | None = None
    rollout: str = ""
    attempt: Count = 0
    detail: Annotated[str, Meta(max_length=1000)] = ""


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of the retained `presence` topic: birth on connect, last will when the connection is lost."""

    device: Name
    boot: Count
    online: bool


class StreamReference(msgspec.Struct, frozen=True, kw_only=True):
    """The reference of one stream: `edges` are CELLS - 1 rising float64 boundaries, little-endian.

    kind "input" / "output": what is watched; tensor and index say where it comes from (index -1: derived, as in images).
    """

    name: str
    kind: Literal["input", "output"]
    tensor: str
    index: Annotated[int, Meta(ge=-1)]
    edges: bytes


class EdgeSet(msgspec.Struct, frozen=True, kw_only=True):
    """The streams and their boundaries, in the order of `Window.streams`; the digest of these bytes is `Window.edges`."""

    streams: tuple[StreamReference, ...]


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """The drift reference (`reference.bin`): how the validation data looked through the float model.

    edge_set: encoded EdgeSet. counts: one per stream. null: one per stream, rising values in millionths of the distance
    between the reference and windows drawn from it, `null_rows` rows each: what the distance looks like without drift.
    """

    schema: int = REFERENCE_SCHEMA
    edge_set: bytes
    counts: tuple[StreamCounts, ...]
    null: tuple[tuple[Count, ...], ...]
    null_rows: Count
    classes: tuple[Count, ...] = ()
    confidence: tuple[Count, ...] = ()


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Payload inside the signed envelope of `command/{id}`. expires: Unix seconds."""

    device: Name
    id: Name
    kind: Literal["benchmark", "sample", "log_tail", "restart"]
    options: dict[str, str | int | bool] = {}
    expires: Count


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of `result/{id}`. code: "" when done, else the stable code of the refusal or failure."""

    device: Name
    id: Name
    code: str = ""
    body: bytes = b""


def write_window(window: Window) -> bytes:
    """Encode and compress a window. Raises TooLargeError."""
    return deflate(write_message(window, INFLATED_TELEMETRY_LIMIT), TELEMETRY_LIMIT)


def read_window(packed: bytes) -> Received[Window]:
    """Undo `write_window`; `raw` is the message before compression. Raises MalformedError or TooLargeError."""
    if len(packed) > TELEMETRY_LIMIT:
        raise TooLargeError(f"window of {len(packed)} bytes is over the limit of {TELEMETRY_LIMIT}")
    received = read_message(inflate(packed, INFLATED_TELEMETRY_LIMIT), Window, INFLATED_TELEMETRY_LIMIT)
    for index, stream in enumerate(received.value.streams):
        if len(stream.cells) != CELLS:
            raise MalformedError(f"Window: stream {index} has {len(stream.cells)} cells instead of {CELLS}")
    if any(cell >= LATENCY_CELLS for cell in received.value.latency):
        raise MalformedError(f"Window: a latency cell is not below {LATENCY_CELLS}")
    return received


def read_reference(raw: bytes, limit: int = 4 * 1024 * 1024) -> tuple[Received[Reference], Received[EdgeSet]]:
    """Decode a drift reference and the edge set inside it; the second's `sha256` is what windows call `edges`."""
    reference = read_message(raw, Reference, limit)
    require_readable("reference", reference.value.schema)
    edges = read_message(reference.value.edge_set, EdgeSet, limit)
    lengths = {len(edges.value.streams), len(reference.value.counts), len(reference.value.null)}
    if len(lengths) != 1:
        raise MalformedError("Reference: edges, counts and null speak of different numbers of streams")
    if any(len(stream.edges) != 8 * (CELLS - 1) for stream in edges.value.streams):
        raise MalformedError(f"Reference: a stream does not have {CELLS - 1} edges")
    return reference, edges
