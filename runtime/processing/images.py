"""How does a picture become a tensor? An image is [height, width, channels], uint8 0..255 or float32.

No step alters its argument.
"""

from functools import lru_cache

import numpy as np

from runtime.errors import RequestError

Image = np.ndarray


def resize(image: Image, *, height: int, width: int, fit: str, method: str, antialias: bool) -> Image:
    """Scale to [height, width, c]. Whole numbers stay what they are, rounded and clipped; all else becomes float32.

    Each axis by itself, output pixel i centred on (i + 0.5) * in / out - 0.5. bilinear: a triangle of half-width 1 input pixel,
    with antialias max(1, in / out), its weights inside the image scaled to sum 1. nearest: the pixel under the centre,
    between two the right or lower one.
    "cover" scales by the larger ratio and takes what lies about the centre, on fractions of a pixel.
    Source: Pillow's resample (Image.resize, ImageOps.fit), which torchvision follows; its rounding to whole numbers between
    the axes is left out, so results differ from Pillow's by at most one level.
    """
    _require_image(image)
    rows, columns = image.shape[:2]
    top, left, bottom, right = 0.0, 0.0, float(rows), float(columns)
    if fit == "cover":
        if columns * height >= width * rows:
            left = (columns - width / height * rows) / 2
            right = columns - left
        else:
            top = (rows - height / width * columns) / 2
            bottom = rows - top
    if method == "nearest":
        down = _nearest(rows, top, bottom, height)
        across = _nearest(columns, left, right, width)
        picked: Image = image[down[:, np.newaxis], across]
        return picked
    result = _along(image, 0, _taps(rows, top, bottom, height, antialias))
    result = _along(result, 1, _taps(columns, left, right, width, antialias))
    if image.dtype.kind in "iu":
        bounds = np.iinfo(image.dtype)
        whole: Image = np.clip(np.rint(result), bounds.min, bounds.max).astype(image.dtype)
        return whole
    return result


def center_crop(image: Image, *, height: int, width: int) -> Image:
    """The middle [height, width, c]; half pixels round to even, as torchvision does. Raises RequestError when it is smaller."""
    _require_image(image)
    rows, columns = image.shape[:2]
    if rows < height or columns < width:
        raise RequestError(f"an image of {columns} x {rows} pixels is too small to cut {width} x {height} from")
    top, left = round((rows - height) / 2), round((columns - width) / 2)
    return image[top : top + height, left : left + width]


def grayscale(image: Image) -> Image:
    """Luma 0.299 R + 0.587 G + 0.114 B as [h, w, 1]: uint8 rounded in 16-bit fixed point, all else float32.

    Source: ITU-R BT.601, with Pillow's constants for "L", so that uint8 is the same to the bit.
    """
    _require_image(image)
    if image.shape[2] != 3:
        raise RequestError(f"grayscale needs 3 channels, the image has {image.shape[2]}")
    if image.dtype == np.uint8:
        luma = (image.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32) + 0x8000) >> 16
        return luma.astype(np.uint8)[..., np.newaxis]
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    grey: Image = (image.astype(np.float32) * weights).sum(axis=-1, keepdims=True, dtype=np.float32)
    return grey


def channels_first(image: Image) -> Image:
    """[h, w, c] as [c, h, w], contiguous."""
    _require_image(image)
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def _along(image: Image, axis: int, taps: "tuple[np.ndarray, np.ndarray]") -> Image:
    """Weighted sums of pixels along one axis, float32."""
    places, weights = taps
    form = (1, -1, 1) if axis else (-1, 1, 1)
    total: Image | None = None
    for place, weight in zip(places, weights, strict=True):
        part = image.take(place, axis).astype(np.float32)
        part *= weight.reshape(form)
        total = part if total is None else np.add(total, part, out=total)
    if total is None:
        raise AssertionError("a filter without taps")
    return total


@lru_cache(maxsize=64)
def _taps(size: int, start: float, stop: float, out: int, antialias: bool) -> tuple[np.ndarray, np.ndarray]:
    """Input pixels and float32 weights of each output pixel, tap by tap: both [taps, out]."""
    ratio = (stop - start) / out
    width = max(ratio, 1.0) if antialias else 1.0
    centres = start + (np.arange(out) + 0.5) * ratio
    first = np.maximum(0, (centres - width + 0.5).astype(np.int64))
    last = np.minimum(size, (centres + width + 0.5).astype(np.int64))
    places = first + np.arange(int((last - first).max()))[:, np.newaxis]
    weights = np.maximum(0, 1 - np.abs(places + 0.5 - centres) / width)
    weights[places >= last] = 0
    weights /= weights.sum(axis=0)
    return np.minimum(places, size - 1), weights.astype(np.float32)


def _nearest(size: int, start: float, stop: float, out: int) -> np.ndarray:
    centres = start + (np.arange(out) + 0.5) * (stop - start) / out
    return np.clip(centres.astype(np.int64), 0, size - 1)


def _require_image(image: Image) -> None:
    if image.ndim != 3 or 0 in image.shape or image.dtype.kind not in "uif":
        raise RequestError(f"expected an image [height, width, channels], found {image.dtype}{list(image.shape)}")
