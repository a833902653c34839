"""Which rows lie in arrays on disk and in a folder of files, and how are they read in bounded memory?"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from runtime.batch.examples import is_raw_file, read_example
from runtime.batch.rows import Column, Rows, Source, identity_of
from runtime.errors import BatchError, RequestError

ONLY = ""
"""Name of the one column of a source whose columns have none."""


def open_source(path: Path, *, rate: int | None) -> Source:
    """The source a path stands for, by its form. rate: as in `read_example`.

    Raises RequestError for a path that is none, BatchError for a damaged file, ExtraMissingError.
    """
    if path.is_dir():
        return FolderSource(path, rate)
    if not path.is_file():
        raise RequestError(f"{path}: there is no such file or folder")
    if path.suffix == ".npy":
        return ArraySource(path)
    if path.suffix == ".npz":
        return ZipSource(path)
    if path.suffix == ".parquet":
        from runtime.batch.parquet import ParquetSource

        return ParquetSource(path)
    raise RequestError(f"{path}: a batch is an .npy, .npz or .parquet file, or a folder of files")


class FolderSource:
    """One example per file, by name in order of code points; hidden files and folders in it are passed over."""

    def __init__(self, path: Path, rate: int | None) -> None:
        self._files = sorted(
            (file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")), key=lambda f: f.name
        )
        if not self._files:
            raise RequestError(f"{path}: there is no file in this folder")
        self._rate = rate
        self.total = len(self._files)
        self.identity = identity_of(self._files)
        self.is_raw = any(is_raw_file(file) for file in self._files)

    def read(self, first: int, size: int) -> Iterator[Rows]:
        for start in range(first, self.total, size):
            files = self._files[start : start + size]
            found: list[dict[str, np.ndarray]] = []
            bad: dict[int, str] = {}
            for place, file in enumerate(files):
                try:
                    example = read_example(file, self._rate)
                    found.append(example if isinstance(example, dict) else {ONLY: example})
                except BatchError as error:
                    bad[place] = str(error)
                    found.append({})
            names = {name for example in found for name in example}
            for place, example in enumerate(found):
                if place not in bad and (missing := names - example.keys()):
                    bad[place] = f"{files[place].name} has no array {sorted(missing)[0]!r}"
            nothing = np.empty(0)
            columns: dict[str, Column] = {name: [example.get(name, nothing) for example in found] for name in names}
            yield Rows(start, len(files), columns, bad, tuple(file.name for file in files))


class ArraySource:
    """An .npy whose first axis counts rows, read part by part: a mapped file would fill memory as it goes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._opened() as file:
            shape, _ = _header(path, "array", file)
        self.total: int = shape[0]
        self.identity = identity_of([path])
        self.is_raw = False

    def read(self, first: int, size: int) -> Iterator[Rows]:
        with self._opened() as file:
            shape, kind = _header(self._path, "array", file)
            file.seek(first * _row_bytes(shape, kind), 1)
            for start in range(first, self.total, size):
                count = min(size, self.total - start)
                yield Rows(start, count, {ONLY: _values(self._path, file, (count, *shape[1:]), kind)})

    def _opened(self) -> IO[bytes]:
        try:
            return self._path.open("rb")
        except OSError as error:
            raise BatchError(f"{self._path}: {error.strerror}") from error


class ZipSource:
    """An .npz with one array per input, read as a stream: an archive may be larger than memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: list[str] = []
        lengths = set()
        with ExitStack() as stack:
            archive = stack.enter_context(_opened(path))
            for member in archive.namelist():
                self._names.append(member.removesuffix(".npy"))
                lengths.add(_header(path, member, stack.enter_context(archive.open(member)))[0][0])
        if len(lengths) != 1:
            raise BatchError(f"{path}: its arrays have {sorted(lengths) or 'no'} rows; all must have as many")
        self.total: int = lengths.pop()
        self.identity = identity_of([path])
        self.is_raw = False

    def read(self, first: int, size: int) -> Iterator[Rows]:
        with ExitStack() as stack:
            archive = stack.enter_context(_opened(self._path))
            streams = {name: stack.enter_context(archive.open(f"{name}.npy")) for name in self._names}
            forms = {name: _header(self._path, name, stream) for name, stream in streams.items()}
            for name, stream in streams.items():
                shape, kind = forms[name]
                stream.seek(first * _row_bytes(shape, kind), 1)
            for start in range(first, self.total, size):
                count = min(size, self.total - start)
                columns: dict[str, Column] = {
                    name: _values(self._path, stream, (count, *forms[name][0][1:]), forms[name][1])
                    for name, stream in streams.items()
                }
                yield Rows(start, count, columns)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise BatchError(f"{path}: {error}") from error


def _header(path: Path, member: str, stream: IO[bytes]) -> tuple[tuple[int, ...], "np.dtype[Any]"]:
    """Shape and type of an array; the stream then stands at its values."""
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, kind = read(stream)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BatchError(f"{path}: {member}: {error}") from error
    if kind.hasobject or (is_fortran and len(shape) > 1) or not shape:
        raise BatchError(f"{path}: {member}: rows of numbers in C order are read, found {kind}{list(shape)}")
    return shape, kind


def _values(path: Path, stream: IO[bytes], shape: tuple[int, ...], kind: "np.dtype[Any]") -> np.ndarray:
    wanted = shape[0] * _row_bytes(shape, kind)
    try:
        raw = stream.read(wanted)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BatchError(f"{path}: {error}") from error
    if len(raw) != wanted:
        raise BatchError(f"{path}: ends after {len(raw)} of {wanted} bytes")
    return np.frombuffer(raw, kind).reshape(shape)


def _row_bytes(shape: tuple[int, ...], kind: "np.dtype[Any]") -> int:
    return int(np.prod(shape[1:], dtype=np.int64)) * kind.itemsize
