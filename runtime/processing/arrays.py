"""What can be done to any array on its way to a tensor, picture or sound? No step alters its argument."""

import numpy as np

from runtime.errors import RequestError


def to_float(values: np.ndarray) -> np.ndarray:
    """float32: unsigned integers divided by their largest number (255), signed ones by 2**(bits - 1) (32768); floats as they are.

    Source: torchvision's ToDtype(scale=True) for pictures, the common reading of PCM for sound.
    """
    if values.dtype.kind == "u":
        return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    if values.dtype.kind == "i":
        return values.astype(np.float32) / np.float32(2.0 ** (8 * values.dtype.itemsize - 1))
    if values.dtype.kind != "f":
        raise RequestError(f"expected numbers, found {values.dtype}")
    return values.astype(np.float32)


def scale(values: np.ndarray, *, factor: float, offset: float) -> np.ndarray:
    """x * factor + offset in float32."""
    return values.astype(np.float32) * np.float32(factor) + np.float32(offset)


def normalize(values: np.ndarray, *, mean: tuple[float, ...], std: tuple[float, ...], channels: str) -> np.ndarray:
    """(x - mean) / std in float32; mean and std: one number, or one for each entry of the first or last axis.

    Source: torchvision's Normalize.
    """
    axis = 0 if channels == "first" else -1
    parts = []
    for name, numbers in (("mean", mean), ("std", std)):
        if values.ndim == 0 or len(numbers) not in (1, values.shape[axis]):
            raise RequestError(f"normalize has {len(numbers)} numbers as {name} for an array {list(values.shape)}")
        form = (-1, *[1] * (values.ndim - 1)) if channels == "first" else (-1,)
        parts.append(np.array(numbers, np.float32).reshape(form))
    result: np.ndarray = (values.astype(np.float32) - parts[0]) / parts[1]
    return result


def add_channel(values: np.ndarray) -> np.ndarray:
    """[...] as [1, ...]."""
    return values[np.newaxis]


def flatten(values: np.ndarray) -> np.ndarray:
    """[...] as [n], the last axis fastest."""
    return values.reshape(-1)


def transpose(values: np.ndarray) -> np.ndarray:
    """[a, b] as [b, a], contiguous."""
    if values.ndim != 2:
        raise RequestError(f"transpose needs a table, found {list(values.shape)}")
    return np.ascontiguousarray(values.T)
