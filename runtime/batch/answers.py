"""How do rows of a source become answers of a model, each bad row with its reason?"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from runtime.backends.datatypes import NUMPY_TYPES
from runtime.batch.rows import Column, Rows
from runtime.contract.artifact import TensorSpec
from runtime.errors import InferenceError, RequestError
from runtime.processing.pipeline import Preparation, decoded
from runtime.serving.models.model import ServedModel

_WRITABLE = "biufU"
_ENGINE_ROWS = 32
"""Rows of one call: what a network keeps between its layers grows with them. DS-CNN on one core: see docs/runtime/batch.md."""

Taken = np.ndarray | list[np.ndarray | None]
"""Rows of one input as the network takes them: one array, or one per row and None for a bad one."""


class Answers(msgspec.Struct, frozen=True):
    """What came of one chunk. rows: numbers int64[n] of those answered; outputs: arrays with n rows; bad: by row number."""

    rows: np.ndarray
    outputs: dict[str, np.ndarray]
    bad: dict[int, str]


class Answerer:
    """Runs one model over chunks of rows."""

    def __init__(self, served: ServedModel, *, raw: bool) -> None:
        """raw: rows are what the manifest's steps begin with, and answers what they end with. Raises RequestError."""
        self._served = served
        self._manifest = served.manifest
        self._raw = raw
        self._preparation = Preparation(self._manifest.processing.pre)
        if raw and len(self._manifest.inputs) != 1:
            raise RequestError(
                f"raw inputs are for models with one input, {self._manifest.model} has {len(self._manifest.inputs)}"
            )
        sizes = {spec.shape[0] if spec.shape else 1 for spec in self._manifest.inputs}
        self._batch = max(sizes)
        """Rows the network takes at once, -1 for any."""
        self._alike = all(-1 not in spec.shape[1:] for spec in self._manifest.inputs)
        """Whether all rows have one shape, so that they can be stacked."""

    def answer(self, rows: Rows) -> Answers:
        """Raises RequestError where no row at all could fit: the source is of another form than the model's inputs."""
        bad = dict(rows.bad)
        tensors: dict[str, Taken] = {}
        for spec in self._manifest.inputs:
            column = self._column(spec, rows)
            whole = None if self._raw or bad else _whole(spec, column)
            tensors[spec.name] = (
                [None if place in bad else self._row(spec, column, place, bad) for place in range(rows.count)]
                if whole is None
                else whole
            )
        good = [place for place in range(rows.count) if place not in bad]
        outputs = self._run(good, tensors, bad) if good else {}
        good = [place for place in good if place not in bad]
        numbers = rows.first + np.array(good, np.int64)
        return Answers(numbers, outputs, {rows.first + place: reason for place, reason in sorted(bad.items())})

    def _column(self, spec: TensorSpec, rows: Rows) -> Column:
        """The values of one input: by its name, by the labels of its features, or the only ones there are."""
        columns = rows.columns
        if spec.name in columns:
            return columns[spec.name]
        if spec.labels and len(spec.shape) == 2 and all(label in columns for label in spec.labels):
            return np.stack([np.asarray(columns[label]) for label in spec.labels], axis=1)
        if len(columns) == 1 and len(self._manifest.inputs) == 1:
            return next(iter(columns.values()))
        if not columns and rows.bad:
            return []
        known = ", ".join(repr(name) for name in list(columns)[:8])
        raise RequestError(f"{self._manifest.model} needs the input {spec.name!r}; the source has {known}")

    def _row(self, spec: TensorSpec, column: Column, place: int, bad: dict[int, str]) -> np.ndarray | None:
        """One row as the network takes it, or None and the reason."""
        try:
            value = np.asarray(column[place])
            if self._raw:
                value = self._preparation.one(value)
            return _fitting(spec, value)
        except RequestError as error:
            bad[place] = str(error)
            return None

    def _run(self, good: list[int], tensors: dict[str, Taken], bad: dict[int, str]) -> dict[str, np.ndarray]:
        """The outputs of all rows together; where the engine fails on them, row by row."""
        step = self._batch if self._batch != -1 else _ENGINE_ROWS if self._alike else 1
        parts: list[dict[str, np.ndarray]] = []
        for start in range(0, len(good), step):
            places = good[start : start + step]
            try:
                parts.append(self._infer(places, tensors))
            except InferenceError as error:
                if len(places) == 1:
                    bad[places[0]] = str(error)
                    continue
                for place in places:
                    try:
                        parts.append(self._infer([place], tensors))
                    except InferenceError as single:
                        bad[place] = str(single)
        if not parts:
            return {}
        try:
            outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        except ValueError as error:
            raise RequestError(
                f"{self._manifest.model} answers rows in different shapes: {error}; run them one by one"
            ) from error
        for name, array in outputs.items():
            if array.dtype.kind not in _WRITABLE:
                raise RequestError(f"output {name!r} holds {array.dtype}: a batch writes numbers and texts only")
        return outputs

    def _infer(self, places: Sequence[int], tensors: dict[str, Taken]) -> dict[str, np.ndarray]:
        wanted = len(places) if self._batch == -1 else self._batch
        chosen = [*places, *[places[-1]] * (wanted - len(places))]  # a network of a fixed batch gets its last row again
        inputs = {name: _taken(rows, chosen) for name, rows in tensors.items()}
        self._served.check(inputs)
        outputs = self._served.infer(inputs)
        if self._raw:
            outputs = decoded(self._manifest, outputs)
        return {name: array[: len(places)] for name, array in outputs.items()}


def _taken(rows: Taken, places: list[int]) -> np.ndarray:
    if isinstance(rows, np.ndarray):
        return rows if len(places) == len(rows) else rows[places]
    return np.stack([row for place in places if (row := rows[place]) is not None])


def _whole(spec: TensorSpec, column: Column) -> np.ndarray | None:
    """All rows at once where they lie in one array of the right form; None where each must be looked at."""
    wanted = NUMPY_TYPES[spec.datatype]
    if not isinstance(column, np.ndarray) or column.shape[1:] != spec.shape[1:]:
        return None
    return column.astype(wanted, copy=False) if np.can_cast(column.dtype, wanted, "same_kind") else None


def _fitting(spec: TensorSpec, value: np.ndarray) -> np.ndarray:
    """One example in the input's datatype and shape. Raises RequestError. Numbers are converted within their kind only."""
    wanted = NUMPY_TYPES[spec.datatype]
    tail = spec.shape[1:]
    if value.ndim == 0 and tail == (1,):
        value = value.reshape(1)
    if len(value.shape) != len(tail) or any(size not in (-1, given) for size, given in zip(tail, value.shape, strict=True)):
        if math.prod(value.shape) != math.prod(tail) or -1 in tail or value.ndim != 1:
            raise RequestError(f"input {spec.name!r} takes rows of shape {list(tail)}, not {list(value.shape)}")
        value = value.reshape(tail)  # a flat list of the right length, as files of columns hold it
    if not np.can_cast(value.dtype, wanted, "same_kind"):
        raise RequestError(f"input {spec.name!r} takes {spec.datatype}, not {value.dtype}")
    return value.astype(wanted, copy=False)
