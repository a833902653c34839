"""What does normal data look like to this model? The reference that drift on devices is measured against.

From validation data and the float model's outputs, so that all variants of a release share one reference.
"""

from pathlib import Path

import numpy as np

from runtime.contract.artifact import OutputKind, Processing
from runtime.contract.canonical import TELEMETRY_LIMIT, write_message
from runtime.contract.telemetry import CELLS, EdgeSet, Reference, StreamCounts, StreamReference
from runtime.monitor.cells import MISSING, OUT_OF_RANGE, count_cells, make_edges, null_distances
from runtime.monitor.streams import class_count, count_predictions, predictions, stream_bounds, stream_plan, stream_rows
from toolchain.data.arrays import read_split
from toolchain.pipeline.products import FloatModel, SteeringData
from toolchain.pipeline.stage import Stored

NULL_ROWS = 200
"""Rows of the windows the null is drawn for: what a device with little traffic sends in a window."""
NULL_DRAWS = 1000
"""Resolves the 99.9th percentile of the distance without drift."""
_SEED = 0
_SIZE_LIMIT = 64 * TELEMETRY_LIMIT


def write_reference(
    path: Path, model: Stored[FloatModel], data: Stored[SteeringData], kind: OutputKind, post: Processing
) -> None:
    """Write the encoded Reference. Raises TooLargeError when a model has too many streams."""
    inputs, outputs = model.value.variant.inputs, model.value.variant.outputs
    arrays, _ = read_split(data.folder, data.value.validation)
    answers = [np.load(model.folder / name) for name in model.value.reference]
    specs = (*inputs, *outputs)
    tensors = {spec.name: array for spec, array in zip(specs, [*arrays, *answers], strict=True)}
    plan = stream_plan(inputs, outputs, kind)
    rows = stream_rows(plan, specs, tensors)
    low, high = stream_bounds(plan, specs)
    edges = np.stack([make_edges(column) for column in rows.T]) if plan else np.empty((0, CELLS - 1))
    counts = count_cells(edges, rows, low, high) if plan else np.empty((0, OUT_OF_RANGE + 1), np.int64)
    null = null_distances(counts[:, :CELLS], NULL_ROWS, NULL_DRAWS, _SEED)
    classes, confidence = _classes(model, answers, kind, post)
    streams = tuple(
        StreamReference(name=spec.name, kind=spec.kind, tensor=spec.tensor, index=spec.index, edges=row.astype("<f8").tobytes())  # type: ignore[arg-type]
        for spec, row in zip(plan, edges, strict=True)
    )
    reference = Reference(
        edge_set=write_message(EdgeSet(streams=streams), _SIZE_LIMIT),
        counts=tuple(
            StreamCounts(tuple(row[:CELLS].tolist()), int(row[MISSING]), int(row[OUT_OF_RANGE])) for row in counts
        ),
        null=tuple(tuple(row.tolist()) for row in null),
        null_rows=NULL_ROWS,
        classes=classes,
        confidence=confidence,
    )  # fmt: skip
    path.write_bytes(write_message(reference, _SIZE_LIMIT))


def _classes(
    model: Stored[FloatModel], answers: list[np.ndarray], kind: OutputKind, post: Processing
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    outputs = model.value.variant.outputs
    total = class_count(outputs, kind)
    if not total:
        return (), ()
    named = {outputs[0].name: answers[0]}
    per_class, confidence = count_predictions(*predictions(named, outputs[0], post), total)
    return tuple(per_class.tolist()), tuple(confidence.tolist())
