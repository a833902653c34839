"""Which streams of numbers does a model have, and how are they computed from its tensors?

One code for both ends: the toolchain computes the reference with it, the device the windows. NumPy only.

A table [N, F] gives one stream per column, an image batch [N, C, H, W] or [N, H, W, C] its brightness, contrast, sharpness,
entropy and channel means. The outputs of a classifier are told by its classes and confidence; those of other models
column by column. Tensors of another form are not watched.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from runtime.backends.datatypes import numbers
from runtime.contract.artifact import OutputKind, Processing, TensorSpec
from runtime.contract.telemetry import CONFIDENCE_CELLS, StreamReference
from runtime.monitor.cells import confidence_cell
from runtime.processing.pipeline import score

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Tensors = Mapping[str, np.ndarray]

MAX_COLUMNS = 64
"""Streams per tensor; a wider one is watched at evenly spread columns."""
DERIVED = -1
_WATCHED_KINDS: frozenset[OutputKind] = frozenset({"regression", "anomaly", "tensor"})
_IMAGE_STATISTICS = ("brightness", "contrast", "sharpness", "entropy")
# 32 x 32 evenly spread points settle the mean of a frame within 3 % of its contrast, and keep large ones affordable.
_MAX_IMAGE_SIDE = 32
_ENTROPY_BINS = 32
# Temporaries of so many float64 stay below 128 kB, where malloc begins to map and unmap pages for each: 26 us an image of
# 32 x 32 in chunks of 64, 8 us in chunks of 12.
_CHUNK_POINTS = 12_288


class StreamSpec(msgspec.Struct, frozen=True):
    """One stream. index: the column it comes from, or DERIVED for a statistic of the whole tensor."""

    name: str
    kind: str
    tensor: str
    index: int

    def matches(self, reference: StreamReference) -> bool:
        found = (reference.name, reference.kind, reference.tensor, reference.index)
        return found == (self.name, self.kind, self.tensor, self.index)


def stream_plan(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], kind: OutputKind) -> tuple[StreamSpec, ...]:
    """The streams of a model, inputs first, in the order of `stream_rows` columns; names are unique.

    A model with one input names its streams by the bare label ("mean radius", "brightness"); otherwise, and for outputs,
    the tensor's name goes before it.
    """
    plan: list[StreamSpec] = []
    for spec in inputs:
        prefix = "" if len(inputs) == 1 else f"{spec.name}."
        plan += [StreamSpec(prefix + name, "input", spec.name, index) for name, index in _parts(spec)]
    if kind in _WATCHED_KINDS:
        for spec in outputs:
            plan += [StreamSpec(f"{spec.name}.{name}", "output", spec.name, index) for name, index in _parts(spec)]
    return tuple(plan)


def stream_rows(plan: Sequence[StreamSpec], specs: Sequence[TensorSpec], tensors: Tensors) -> Floats:
    """The streams' values for a batch: float64[n, s], one row per example.

    specs: of inputs and outputs together, as declared in the manifest; tensors: both together, by name.
    """
    columns: list[Floats] = []
    for spec in specs:
        wanted = [stream for stream in plan if stream.tensor == spec.name]
        if not wanted:
            continue
        values = numbers(tensors[spec.name])
        if _is_image(spec):
            columns.append(_image_rows(values, spec)[:, : len(wanted)])
        else:
            table = values.reshape(len(values), math.prod(values.shape[1:]))
            columns.append(np.asarray(table[:, [stream.index for stream in wanted]], np.float64))
    return np.concatenate(columns, axis=1) if columns else np.empty((0, 0))


def stream_bounds(plan: Sequence[StreamSpec], specs: Sequence[TensorSpec]) -> tuple[Floats, Floats]:
    """Inclusive bounds float64[s] of each stream by its tensor's declared range; infinite where there is none.

    A statistic of an image is a number of its own: only its mean values share the pixels' range.
    """
    ranges = {spec.name: spec.range for spec in specs}
    low, high = np.full(len(plan), -np.inf), np.full(len(plan), np.inf)
    for index, stream in enumerate(plan):
        declared = ranges[stream.tensor]
        is_statistic = stream.index == DERIVED and stream.name.rpartition(".")[2] in _IMAGE_STATISTICS[1:]
        if declared is not None and not is_statistic:
            low[index], high[index] = float(declared[0]), float(declared[1])
    return low, high


def class_count(outputs: Sequence[TensorSpec], kind: OutputKind) -> int:
    """How many classes the first output tells apart: its last axis, two where that is a single score; 0 without classes."""
    if kind != "classification" or outputs[0].datatype == "BYTES":
        return 0
    width = outputs[0].shape[-1] if len(outputs[0].shape) == 2 else 0
    return 2 if width == 1 else max(width, 0)


def predictions(outputs: Tensors, spec: TensorSpec, processing: Processing) -> tuple[Integers, Floats]:
    """Class and confidence of each example of a classifier: int64[n], float64[n]; class -1 where a score is NaN.

    spec: of the tensor with the scores, [n, classes] or [n, 1] for two classes. They become probabilities by the manifest's
    score steps alone (a decoding step is for whoever asked); nobody guesses from values whether they already are.
    """
    scores = score(processing.post, outputs[spec.name])
    if scores.shape[-1] == 1:
        scores = np.concatenate([1 - scores, scores], axis=-1)
    broken = np.isnan(scores).any(axis=-1)
    classes = np.where(broken, -1, scores.argmax(axis=-1))
    return classes, np.where(broken, np.nan, scores.max(axis=-1))


def count_predictions(classes: Integers, confidence: Floats, class_total: int) -> tuple[Integers, Integers]:
    """Predictions per class int64[class_total] and per confidence cell; those without a class are in neither."""
    known = classes >= 0
    per_class = np.bincount(classes[known], minlength=class_total)
    return per_class, np.bincount(confidence_cell(confidence[known]), minlength=CONFIDENCE_CELLS)


def _is_image(spec: TensorSpec) -> bool:
    return spec.layout in ("NCHW", "NHWC") and len(spec.shape) == 4


def _parts(spec: TensorSpec) -> list[tuple[str, int]]:
    """(name, index) of each stream of one tensor."""
    if spec.datatype == "BYTES" or not spec.shape:
        return []
    if _is_image(spec):
        channels = spec.shape[spec.layout.index("C")]
        names = [*_IMAGE_STATISTICS, *_channel_names(spec, channels)]
        return [(name, DERIVED) for name in names]
    width = 1 if len(spec.shape) == 1 else spec.shape[-1]
    if len(spec.shape) > 2 or width < 1:
        return []
    chosen = range(width) if width <= MAX_COLUMNS else np.linspace(0, width - 1, MAX_COLUMNS).round().astype(int).tolist()
    labels = spec.labels if len(set(spec.labels)) == width else ()
    return [(labels[index] if labels else f"[{index}]", index) for index in chosen]


def _channel_names(spec: TensorSpec, channels: int) -> list[str]:
    if channels < 2:
        return []
    labels = spec.labels if len(set(spec.labels)) == channels else [str(index) for index in range(channels)]
    return [f"mean of {label}" for label in labels]


def _image_rows(values: np.ndarray, spec: TensorSpec) -> Floats:
    """Statistics of images: float64[n, 4] or [n, 4 + channels].

    brightness: mean; contrast: standard deviation; sharpness: mean absolute difference of horizontal and of vertical
    neighbours, taken at full resolution; entropy: of 32 equal cells over the declared range (else over 0..1), in bits.
    NaN or an infinity in an image makes its statistics NaN, that is missing.
    """
    images = np.moveaxis(values, spec.layout.index("C"), -1)
    points_per_image = math.prod(min(side, _MAX_IMAGE_SIDE) for side in images.shape[1:3]) * images.shape[3]
    step = max(1, _CHUNK_POINTS // max(1, points_per_image))
    chunks = [_chunk_rows(images[start : start + step], spec) for start in range(0, max(1, len(images)), step)]
    return np.concatenate(chunks)


def _chunk_rows(images: np.ndarray, spec: TensorSpec) -> Floats:
    rows, columns = (max(1, -(-side // _MAX_IMAGE_SIDE)) for side in images.shape[1:3])
    points = np.asarray(images[:, ::rows, ::columns], dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        flat = points.reshape(len(points), math.prod(points.shape[1:]))
        brightness = flat.mean(axis=1)
        statistics = [brightness, flat.std(axis=1), _sharpness(images, rows, columns), _entropy(flat, brightness, spec)]
        result = np.stack(statistics, axis=1)
        if points.shape[-1] > 1:
            result = np.concatenate([result, points.mean(axis=(1, 2))], axis=1)
    result[~np.isfinite(brightness)] = np.nan
    return result


def _sharpness(images: np.ndarray, rows: int, columns: int) -> Floats:
    """Differences between neighbours of the full image, at every rows-th and columns-th point."""
    total = np.zeros(len(images))
    for here, there in (
        (images[:, :-1:rows, ::columns], images[:, 1::rows, ::columns]),
        (images[:, ::rows, :-1:columns], images[:, ::rows, 1::columns]),
    ):
        if here.size:
            total += np.abs(np.subtract(there, here, dtype=np.float64)).mean(axis=(1, 2, 3))
    return total / 2


def _entropy(flat: Floats, brightness: Floats, spec: TensorSpec) -> Floats:
    low, high = (float(bound) for bound in spec.range) if spec.range is not None else (0.0, 1.0)
    scaled = (flat - low) * (_ENTROPY_BINS / max(high - low, np.finfo(np.float64).tiny))
    scaled[~np.isfinite(brightness)] = 0
    bins = np.clip(scaled, 0, _ENTROPY_BINS - 1).astype(np.intp)
    bins += np.arange(0, len(flat) * _ENTROPY_BINS, _ENTROPY_BINS)[:, None]
    shares = np.bincount(bins.ravel(), minlength=len(flat) * _ENTROPY_BINS).reshape(len(flat), _ENTROPY_BINS) / flat.shape[1]
    terms = np.zeros_like(shares)
    np.log2(shares, out=terms, where=shares > 0)
    bits: Floats = -(shares * terms).sum(axis=1)
    return bits
