"""Is what a source returned fit to train and judge on, and how does it lie on disk?

A source returns {"train": (inputs, targets), "validation": ..., "test": ...} and may say "classes", "features", "layout",
"range" and "slices". inputs: one array, or a dict of them by name; the first axis counts examples. slices: {name: {"test":
texts or whole numbers, one a test row}}, to judge parts of the test split apart.
"""

import difflib
import hashlib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from runtime.contract.artifact import Datatype, OutputKind, TensorSpec
from toolchain.data.examples import Examples
from toolchain.data.notes import notes_on
from toolchain.errors import DataError
from toolchain.pipeline.products import DataSplits, HeldOutData, SliceColumn, Split, SteeringData

SPLITS = ("train", "validation", "test")
DESCRIPTIONS = ("classes", "features", "layout", "range", "slices")
ONLY_INPUT = "input"
"""Name of the input tensor where the source returns one bare array."""

_DATATYPES: dict[str, Datatype] = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32",
}  # fmt: skip


def prepare(result: Any, output_kind: OutputKind, folder: Path) -> DataSplits:
    """Check everything a source returned and write it below `folder`. Raises DataError naming split, row and reason."""
    _require_form(result)
    splits = {name: _examples(name, result[name]) for name in SPLITS}
    inputs = _describe(splits, result)
    classes = _classes(splits, result, output_kind)
    columns = _slices(result.get("slices"), len(splits["test"].targets))
    counts = {name: _count(part.targets, len(classes)) for name, part in splits.items()} if classes else {}
    written = {name: _write(folder, name, part) for name, part in splits.items()}
    said = repr((inputs, classes, output_kind))
    steering = _digest([splits["train"], splits["validation"]], said)
    held_out = _digest([splits["test"]], said, columns)
    return DataSplits(
        steering=SteeringData(
            train=written["train"], validation=written["validation"], inputs=inputs, classes=classes, output_kind=output_kind,
            digest=steering,
        ),
        held_out=HeldOutData(test=written["test"], digest=held_out, slices=_write_slices(folder, columns)),
        fingerprint=hashlib.sha256(f"{steering}{held_out}".encode()).hexdigest(),
        class_counts=counts,
        notes=notes_on(splits, classes),
    )  # fmt: skip


def _require_form(result: Any) -> None:
    if not isinstance(result, Mapping):
        raise DataError(f"the data source returned {type(result).__name__}; expected a dict with train, validation and test")
    known = (*SPLITS, *DESCRIPTIONS)
    for key in result:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            raise DataError(f"the data source returned an unknown key {key!r}; {'nearest is ' + close[0] if close else known}")
    for name in SPLITS:
        if name not in result:
            raise DataError(f"the data source returned no {name!r} split; it returned {', '.join(map(str, result)) or 'nothing'}")


def _examples(name: str, value: Any) -> Examples:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise DataError(f"split {name!r} is not a pair (inputs, targets)")
    given, targets = value
    given = given if isinstance(given, Mapping) else {ONLY_INPUT: given}
    if not given:
        raise DataError(f"split {name!r} has no input array")
    inputs = {str(key): _array(f"{name} input {key!r}", array) for key, array in given.items()}
    targets = _array(f"{name} targets", targets)
    for key, array in inputs.items():
        if len(array) == 0:
            raise DataError(f"split {name!r} is empty")
        if len(array) != len(targets):
            raise DataError(f"split {name!r} has {len(array)} rows of {key!r} but {len(targets)} targets")
        _require_finite(f"split {name!r}, input {key!r}", array)
    _require_finite(f"split {name!r}, targets", targets)
    return Examples(inputs, targets)


def _array(what: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{what}: rows differ in shape ({error})") from error
    if array.ndim == 0:
        raise DataError(f"{what}: a single value where an array with one row per example is expected")
    if array.dtype == np.float64:  # NumPy's default, hardly ever meant: engines and networks compute in float32
        array = array.astype(np.float32)
    if array.dtype.name not in _DATATYPES:
        raise DataError(f"{what}: dtype {array.dtype} cannot be fed to a model; encode it as numbers")
    return np.ascontiguousarray(array)


def _require_finite(what: str, array: np.ndarray) -> None:
    if array.dtype.kind != "f":
        return
    bad = ~np.isfinite(array)
    if bad.any():
        place = tuple(int(index) for index in np.argwhere(bad)[0])
        kind = "NaN" if np.isnan(array[place]) else "infinity"
        rows = int(bad.reshape(len(array), -1).any(axis=1).sum())
        raise DataError(f"{what}: {kind} at row {place[0]}{list(place[1:]) or ''}; {rows} rows are not finite")


def _describe(splits: dict[str, Examples], result: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    first = splits["train"].inputs
    for name, part in splits.items():
        if part.inputs.keys() != first.keys():
            raise DataError(f"split {name!r} has inputs {sorted(part.inputs)}, train has {sorted(first)}")
        for key, array in part.inputs.items():
            if array.shape[1:] != first[key].shape[1:] or array.dtype != first[key].dtype:
                raise DataError(
                    f"split {name!r}: rows of {key!r} are {array.dtype}{list(array.shape[1:])}, "
                    f"in train {first[key].dtype}{list(first[key].shape[1:])}"
                )
    return tuple(_spec(key, array, result) for key, array in first.items())


def _spec(key: str, array: np.ndarray, result: Mapping[str, Any]) -> TensorSpec:
    layout = str(_for_input(result.get("layout"), key) or "")
    if layout and len(layout) != array.ndim:
        raise DataError(f"layout {layout!r} names {len(layout)} axes, input {key!r} has {array.ndim}")
    bounds = _for_input(result.get("range"), key)
    labels = tuple(str(label) for label in _for_input(result.get("features"), key) or ())
    if labels and len(labels) != array.shape[-1]:
        raise DataError(f"{len(labels)} feature names for {array.shape[-1]} columns of input {key!r}")
    return TensorSpec(
        name=key,
        datatype=_DATATYPES[array.dtype.name],
        shape=(-1, *array.shape[1:]),
        layout=layout,
        range=None if bounds is None else (Decimal(str(bounds[0])), Decimal(str(bounds[1]))),
        labels=labels,
    )


def _for_input(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else value


def _classes(splits: dict[str, Examples], result: Mapping[str, Any], output_kind: OutputKind) -> tuple[str, ...]:
    if output_kind != "classification":
        return ()
    for name, part in splits.items():
        if part.targets.dtype.kind not in "iu" or part.targets.ndim != 1:
            raise DataError(
                f"split {name!r}: targets are {part.targets.dtype}{list(part.targets.shape)}; classes are integers, one a row"
            )
    highest = max(int(part.targets.max()) for part in splits.values())
    names = tuple(str(name) for name in result.get("classes") or range(highest + 1))
    for name, part in splits.items():
        wrong = np.flatnonzero((part.targets < 0) | (part.targets >= len(names)))
        if wrong.size:
            row = int(wrong[0])
            raise DataError(f"split {name!r}: label {int(part.targets[row])} at row {row} is outside 0..{len(names) - 1}")
    seen = np.unique(splits["train"].targets)
    if seen.size < 2:
        raise DataError(f"split 'train' holds one class only ({names[int(seen[0])]}); there is nothing to tell apart")
    return names


def _slices(given: Any, rows: int) -> dict[str, np.ndarray]:
    """The columns as text by name, in sorted order."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise DataError(f"'slices' is {type(given).__name__}; expected {{name: {{'test': one text or whole number a row}}}}")
    return {str(name): _column(str(name), given[name], rows) for name in sorted(given, key=str)}


def _column(name: str, given: Any, rows: int) -> np.ndarray:
    if not isinstance(given, Mapping) or set(given) != {"test"}:
        raise DataError(f"slice {name!r}: expected {{'test': values}}, for the test split alone is judged by its parts")
    values = np.asarray(given["test"])
    if values.ndim != 1 or values.dtype.kind not in "iubU":
        raise DataError(
            f"slice {name!r}: values are {values.dtype}{list(values.shape)}; expected one text or whole number a row "
            "(put measured numbers into named ranges first)"
        )
    if len(values) != rows:
        raise DataError(f"slice {name!r} has {len(values)} values for {rows} test rows")
    return values.astype(np.str_)


def _write_slices(folder: Path, columns: Mapping[str, np.ndarray]) -> tuple[SliceColumn, ...]:
    written = []
    for index, (name, values) in enumerate(columns.items()):
        written.append(SliceColumn(name=name, file=f"test.slice.{index}.npy"))
        np.save(folder / written[-1].file, values)
    return tuple(written)


def _count(targets: np.ndarray, classes: int) -> tuple[int, ...]:
    return tuple(int(count) for count in np.bincount(targets, minlength=classes))


def _write(folder: Path, name: str, part: Examples) -> Split:
    files = []
    for index, array in enumerate(part.inputs.values()):
        files.append(f"{name}.input.{index}.npy")
        np.save(folder / files[-1], array)
    np.save(folder / f"{name}.targets.npy", part.targets)
    return Split(rows=len(part.targets), inputs=tuple(files), targets=f"{name}.targets.npy")


def _digest(parts: list[Examples], said: str, columns: Mapping[str, np.ndarray] | None = None) -> str:
    digest = hashlib.sha256(said.encode())
    for name, values in (columns or {}).items():
        digest.update(repr((name, values.tolist())).encode())
    for part in parts:
        for name, array in [*part.inputs.items(), ("", part.targets)]:
            digest.update(f"\0{name}\0{array.dtype}\0{array.shape}\0".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
