"""What raw input or tensors lie in one file: a picture, a sound or arrays?"""

import wave
from pathlib import Path

import numpy as np

from runtime.contract.artifact import Manifest
from runtime.errors import BatchError, ExtraMissingError
from runtime.processing.catalogue import options_of

PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
SOUNDS = frozenset({".wav"})
ARRAYS = frozenset({".npy", ".npz"})
_SAMPLE_TYPES = {1: "u1", 2: "<i2", 4: "<i4"}


def is_raw_file(path: Path) -> bool:
    """Whether it holds a picture or a sound, which no network takes as it is."""
    return path.suffix.lower() in PICTURES | SOUNDS


def read_example(path: Path, rate: int | None = None) -> np.ndarray | dict[str, np.ndarray]:
    """A picture as uint8[h, w, 3], a sound as integers[n], an .npy as it is, an .npz by the names of its arrays.

    rate: samples a second that a sound must have. Raises BatchError for a file that is none of these, ExtraMissingError.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in PICTURES:
            return read_picture(path)
        if suffix in SOUNDS:
            return _read_sound(path, rate)
        if suffix == ".npy":
            array: np.ndarray = np.load(path, allow_pickle=False)
            return array
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
    except (BatchError, ExtraMissingError):
        raise
    except Exception as error:  # decoders fail in many ways: OSError, ValueError, EOFError, zipfile's and Pillow's own
        raise BatchError(f"{path.name} cannot be read: {str(error) or type(error).__name__}") from error
    raise BatchError(f"{path.name} is none of {', '.join(sorted(PICTURES | SOUNDS | ARRAYS))}")


def read_picture(file: "Path | object") -> np.ndarray:
    """uint8[h, w, 3], upright as its camera says. file: a path or an open binary file. Raises what Pillow does."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ExtraMissingError("pictures need Pillow; install edgewright[batch]") from error
    with Image.open(file) as image:  # type: ignore[arg-type]
        if image.mode[0] in "IF":
            raise BatchError(f"more than 8 bits a channel (mode {image.mode}); convert it to 8 bits")
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), np.uint8)


def sound_rate(manifest: Manifest) -> int | None:
    """Samples a second the model's own steps reckon with; None where no step does."""
    for step in manifest.processing.pre:
        rate = options_of(step).get("rate")
        if rate is not None:
            return int(str(rate))
    return None


def _read_sound(path: Path, rate: int | None) -> np.ndarray:
    with wave.open(str(path), "rb") as file:
        channels, width, found = file.getnchannels(), file.getsampwidth(), file.getframerate()
        if channels != 1 or width not in _SAMPLE_TYPES:
            raise BatchError(f"{path.name} has {channels} channels of {8 * width} bits; one of 8, 16 or 32 bits is read")
        if rate is not None and found != rate:
            raise BatchError(f"{path.name} has {found} samples a second, the model takes {rate}")
        samples = np.frombuffer(file.readframes(file.getnframes()), _SAMPLE_TYPES[width])
    return (samples.astype(np.int16) - 128).astype(np.int8) if width == 1 else samples
