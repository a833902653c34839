"""How are arrays kept under any names, so that equal arrays are equal bytes?

np.savez takes names as keyword arguments, so none may be called "file".
"""

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from runtime.errors import RequestError

_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def save_npz(file: IO[bytes] | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz that np.load reads without pickles. Raises RequestError for an array of objects."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            add_member(archive, name, array.shape, array.dtype, [array])


def add_member(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], kind: np.dtype, parts: Iterable[np.ndarray]) -> None:
    """Append one array from its parts along the first axis, without having them all in memory. Raises as `save_npz`."""
    if kind.hasobject:
        raise RequestError(f"{name!r} holds {kind}: only numbers and texts of fixed length can be written as .npz")
    with archive.open(zipfile.ZipInfo(f"{name}.npy", _LONG_AGO), "w", force_zip64=True) as member:
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(member, header)
        for part in parts:
            member.write(np.ascontiguousarray(part, kind).tobytes())
