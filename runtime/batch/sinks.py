"""How do finished chunks become one file or folder, with no more than a few of them in memory?"""

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from runtime.batch.job import Chunk, Work
from runtime.batch.npz import add_member, save_npz
from runtime.errors import BatchError, RequestError
from runtime.files import naming_a_full_disk, remove_durably, rename_durably, sync_directory


def check_out(out: Path) -> None:
    """Raise RequestError for a result that could not be written, ExtraMissingError where its library is missing."""
    if out.suffix == ".parquet":
        import runtime.batch.parquet  # noqa: F401  whether it is there
    elif out.suffix not in ("", ".npz"):
        raise RequestError(f"{out}: a result is an .npz or .parquet file, or a folder (a name without a suffix)")
    if not out.absolute().parent.is_dir():
        raise RequestError(f"{out}: there is no folder {out.parent}")


def write_result(work: Work, chunks: int) -> None:
    """Write OUT from the chunks, whole or not at all. Raises BatchError where outputs of chunks differ in form, DiskFullError."""
    temporary = work.folder / ("result" + work.out.suffix)
    writers: dict[str, Callable[[Path, Work, int], None]] = {".npz": _write_npz, ".parquet": _write_parquet, "": _write_folder}
    remove_durably(temporary)
    with naming_a_full_disk(f"writing {work.out.name}"):
        writers[work.out.suffix](temporary, work, chunks)
        _sync(temporary)
        rename_durably(temporary, work.out)


def write_rejects(work: Work, chunks: int) -> None:
    """Write OUT.rejects.jsonl, one line per rejected row; without any there is no such file."""
    temporary = work.folder / "rejects.jsonl"
    count = 0
    with naming_a_full_disk(f"writing {work.rejects.name}"):
        with temporary.open("w", encoding="utf-8") as file:
            for chunk in work.chunks(chunks):
                names = iter(chunk.bad_names)
                for row, reason in chunk.answers.bad.items():
                    name = next(names, "")
                    line = {"row": row} | ({"file": name} if name else {}) | {"reason": reason}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                    count += 1
            file.flush()
            os.fsync(file.fileno())
        if count:
            rename_durably(temporary, work.rejects)
        else:
            temporary.unlink()
            work.rejects.unlink(missing_ok=True)


def _tables(work: Work, chunks: int) -> Iterator[dict[str, np.ndarray]]:
    """Of each chunk with answers, its columns: row, file where rows have one, then the outputs."""
    for chunk in work.chunks(chunks):
        if len(chunk.answers.rows):
            yield _table(chunk)


def _table(chunk: Chunk) -> dict[str, np.ndarray]:
    taken = {"row": chunk.answers.rows} | ({"file": np.array(chunk.names)} if chunk.names else {})
    return taken | {(f"{name}_" if name in taken else name): array for name, array in chunk.answers.outputs.items()}


def _write_parquet(path: Path, work: Work, chunks: int) -> None:
    from runtime.batch.parquet import ParquetSink

    sink = ParquetSink(path)
    try:
        for table in _tables(work, chunks):
            sink.write(table)
    finally:
        sink.close()


def _write_npz(path: Path, work: Work, chunks: int) -> None:
    """One pass to learn the lengths, then one per array: no array is ever whole in memory."""
    forms: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    total = 0
    for table in _tables(work, chunks):
        total += len(table["row"])
        for name, array in table.items():
            shape, kind = forms.setdefault(name, (array.shape[1:], array.dtype))
            if array.shape[1:] != shape or array.dtype.kind != kind.kind:
                raise BatchError(
                    f"{work.out.name}: rows of {name!r} are {list(shape)} and {list(array.shape[1:])}; write a folder instead"
                )
            forms[name] = (shape, np.promote_types(kind, array.dtype))
    with zipfile.ZipFile(path, "w") as archive:
        for name, (shape, kind) in forms.items():
            add_member(archive, name, (total, *shape), kind, (table[name] for table in _tables(work, chunks)))


def _write_folder(path: Path, work: Work, chunks: int) -> None:
    path.mkdir()
    for index, table in enumerate(_tables(work, chunks)):
        with (path / f"part-{index:08d}.npz").open("wb") as file:
            save_npz(file, table)
            file.flush()
            os.fsync(file.fileno())


def _sync(path: Path) -> None:
    if path.is_dir():
        sync_directory(path)
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())
