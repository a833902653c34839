"""How do rows come from and go to Parquet? Through pyarrow, imported only here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from runtime.batch.examples import read_picture
from runtime.batch.rows import Column, Rows, identity_of
from runtime.errors import BatchError, DaemonError, ExtraMissingError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as missing:
    raise ExtraMissingError("Parquet files need pyarrow; install edgewright[batch]") from missing

_NOTHING = np.empty(0)


class ParquetSource:
    """A file's rows. Numbers are columns; lists of numbers are arrays; binary, or a struct with `bytes`, is a picture."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with pq.ParquetFile(path) as file:
                self._group_rows = [file.metadata.row_group(index).num_rows for index in range(file.metadata.num_row_groups)]
                schema = file.schema_arrow
        except (OSError, pa.ArrowException) as error:
            raise BatchError(f"{path}: {error}") from error
        self.total: int = sum(self._group_rows)
        self.identity = identity_of([path])
        self.is_raw = any(_is_picture(field.type) for field in schema)

    def read(self, first: int, size: int) -> Iterator[Rows]:
        group, before = 0, 0
        while group < len(self._group_rows) and before + self._group_rows[group] <= first:
            before += self._group_rows[group]
            group += 1
        try:
            with pq.ParquetFile(self._path, pre_buffer=False) as file:
                batches = file.iter_batches(size, row_groups=list(range(group, len(self._group_rows))))
                yield from self._rows(batches, first - before, first, size)
        except (OSError, pa.ArrowException) as error:
            raise BatchError(f"{self._path}: {error}") from error

    def _rows(self, batches: Iterator[Any], skip: int, first: int, size: int) -> Iterator[Rows]:
        """The batches as chunks of exactly `size` rows, for a reader's own end with its row groups."""
        waiting: list[Any] = []
        held = 0
        for batch in batches:
            part = batch.slice(skip)
            skip = max(0, skip - batch.num_rows)
            waiting.append(part)
            held += part.num_rows
            while held >= size:
                table = pa.Table.from_batches(waiting)
                yield _chunk(table.slice(0, size), first)
                first, held = first + size, held - size
                waiting = table.slice(size).to_batches()
        if held:
            yield _chunk(pa.Table.from_batches(waiting), first)


class ParquetSink:
    """Writes one row group per chunk, so that equal chunks make equal bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def write(self, arrays: dict[str, np.ndarray]) -> None:
        """Append rows. Raises BatchError when their form is not that of the first ones."""
        table = pa.table({name: _arrow(array) for name, array in arrays.items()})
        try:
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._path, table.schema)
            self._writer.write_table(table)
        except (pa.ArrowException, ValueError) as error:
            raise BatchError(f"{self._path.name}: {' '.join(str(error).split())}") from error

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _chunk(table: Any, first: int) -> Rows:
    bad: dict[int, str] = {}
    columns = {name: _column(name, table.column(name).combine_chunks(), bad) for name in table.column_names}
    return Rows(first, table.num_rows, columns, bad)


def _column(name: str, values: Any, bad: dict[int, str]) -> Column:
    if values.null_count:
        for place in np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False)).tolist():
            bad.setdefault(place, f"nothing in column {name!r}")
    kind = values.type
    if _is_picture(kind):
        return [_picture(name, values[place].as_py(), place, bad) for place in range(len(values))]
    table = _even(values)
    if table is not None:
        return table
    if _is_number(kind) and not values.null_count:
        numbers: np.ndarray = values.to_numpy(zero_copy_only=False)
        return numbers
    rows: list[np.ndarray] = []
    for place in range(len(values)):
        try:
            array = np.asarray(values[place].as_py())
        except ValueError:
            array = np.empty((), object)
        if array.dtype.kind not in "biuf":
            bad.setdefault(place, f"column {name!r} holds no array of numbers here: a text, a gap, or rows of unequal length")
            array = _NOTHING
        rows.append(array.astype(_NUMBER_OF.get(str(_innermost(kind)), array.dtype), copy=False))
    return rows


def _even(values: Any) -> np.ndarray | None:
    """Lists of numbers of one length without a gap as a table at once; None for all else."""
    kind = values.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)) or values.null_count:
        return None
    flat = values.flatten()
    if not _is_number(kind.value_type) or flat.null_count or not len(values):
        return None
    lengths = np.full(len(values), kind.list_size) if pa.types.is_fixed_size_list(kind) else values.value_lengths().to_numpy()
    if lengths.min() != lengths.max():
        return None
    table: np.ndarray = flat.to_numpy(zero_copy_only=False).reshape(len(values), lengths[0])
    return table


_NUMBER_OF = {
    "float": np.float32,
    "halffloat": np.float16,
    "uint8": np.uint8,
    "int8": np.int8,
    "int16": np.int16,
    "uint16": np.uint16,
}
"""What as_py gives back as a wider type: read as the column's own, since a datatype decides whether a row fits."""


def _picture(name: str, value: Any, place: int, bad: dict[int, str]) -> np.ndarray:
    import io

    raw = value.get("bytes") if isinstance(value, dict) else value
    if raw is None:
        bad.setdefault(place, f"nothing in column {name!r}")
        return _NOTHING
    try:
        return read_picture(io.BytesIO(raw))
    except DaemonError as error:
        if isinstance(error, ExtraMissingError):
            raise
        bad.setdefault(place, str(error))
    except Exception as error:  # noqa: BLE001  Pillow's decoders fail in many ways, and each costs one row
        bad.setdefault(place, f"column {name!r} is no readable picture: {error}")
    return _NOTHING


def _is_picture(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _innermost(kind: Any) -> Any:
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return kind


def _arrow(array: np.ndarray) -> Any:
    """A column whose cells are numbers, texts, or lists within lists of the array's own lengths."""
    values = pa.array(array.reshape(-1))
    for length in reversed(array.shape[1:]):
        values = pa.FixedSizeListArray.from_arrays(values, length)
    return values
