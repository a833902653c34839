"""How does a folder of images become train, validation and test arrays?

The data source "imagefolder:PATH". PATH holds train/CLASS/*.png, validation/CLASS/*.png and test/CLASS/*.png, or CLASS/*.png
alone; whichever of validation and test is missing is drawn from the rest, class by class, by seed. Files other than images, and
everything whose name begins with a dot, are passed over. Images are read with Pillow, for its opening of a file is seen by the
trace (torchvision's own decoder reads in native code).
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from PIL import Image, ImageOps

from toolchain.errors import DataError, RecipeError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_VALIDATION_NAMES = ("validation", "val", "valid")
_OPTIONS_KEY = "data.options"

Share = Annotated[float, Meta(ge=0, lt=1)]
Channels = float | tuple[float, ...]


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[data] options` of an image folder.

    size: pixels, (height, width) or one number for a square; an image is scaled to cover it and cropped about its centre.
    Without it all images must have one size. grey: one channel instead of three. mean, std: subtracted from and divided into
    pixels in 0..1, one number or one a channel. validation, test: the shares drawn where PATH has no such folder; seed: of that
    draw. limit: at most so many images of a folder, drawn by seed, 0 for all. hint: said when there is no data, such as where to get it.
    raw: images as they are, uint8[height, width, 3] of any size, for a recipe whose [processing] prepares them.
    """

    size: int | tuple[int, int] | None = None  # sides are checked apart: msgspec 0.22 crashes on a tuple of constrained integers
    grey: bool = False
    mean: Channels = 0.0
    std: Channels = 1.0
    validation: Share = 0.15
    test: Share = 0.15
    seed: Annotated[int, Meta(ge=0)] = 0
    limit: Annotated[int, Meta(ge=0)] = 0
    hint: str = ""
    raw: bool = False


Files = dict[str, list[Path]]
"""The images of each class, sorted by name."""


def splits(path: str, **options: Any) -> dict[str, Any]:
    """What a data source returns: images float32[n, channels, height, width], labels int64[n] in the order of sorted class names.

    Raises DataError naming the folder or the file, RecipeError for options that make no sense.
    """
    try:
        settings = msgspec.convert(options, Options)
    except msgspec.ValidationError as error:
        known = ", ".join(Options.__struct_fields__)
        raise RecipeError(f"{_OPTIONS_KEY}: {error}; an image folder takes {known}") from error
    if settings.size is not None and np.min(settings.size) < 1:
        raise RecipeError(f"{_OPTIONS_KEY}.size: pixels are counted from 1")
    if settings.raw and (settings.size, settings.grey, settings.mean, settings.std) != (None, False, 0.0, 1.0):
        raise RecipeError(
            f"{_OPTIONS_KEY}.raw: size, grey, mean and std are for processing.pre then: resize, grayscale, normalize"
        )
    mean, std = _normalisation(settings)
    parts = _parts(Path(path), settings)
    classes = sorted(parts["train"])
    for name, files in parts.items():
        for other in sorted(files.keys() - set(classes)):
            raise DataError(f"{path}: {name} has a class {other!r} that train has not")
    reader = _Reader(Path(path), settings, mean, std)
    if settings.raw:
        return {
            **{name: _raw_examples(files, classes, reader) for name, files in parts.items()},
            "classes": classes,
            "layout": "NCHW",
        }
    bounds = np.concatenate([(0 - mean) / std, (1 - mean) / std])
    return {
        **{name: _examples(files, classes, reader) for name, files in parts.items()},
        "classes": classes,
        "layout": "NCHW",
        "range": (float(bounds.min()), float(bounds.max())),
    }


def _normalisation(settings: Options) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, float32[channels, 1, 1] each."""
    channels = 1 if settings.grey else 3
    both = []
    for name, value in (("mean", settings.mean), ("std", settings.std)):
        given = np.atleast_1d(np.asarray(value, np.float32))
        if given.size not in (1, channels):
            raise RecipeError(f"{_OPTIONS_KEY}.{name}: {given.size} numbers for {channels} channels")
        both.append(np.broadcast_to(given, channels).reshape(channels, 1, 1))
    if not (both[1] > 0).all():
        raise RecipeError(f"{_OPTIONS_KEY}.std: must be greater than 0")
    return both[0], both[1]


def _parts(root: Path, settings: Options) -> dict[str, Files]:
    """The files of each split."""
    hint = f"; {settings.hint}" if settings.hint else ""
    if not root.is_dir():
        raise DataError(f"data.source: there is no folder {root}{hint}")
    folders = {place.name for place in root.iterdir() if place.is_dir()}  # listed, so that the trace sees one appear
    if "train" not in folders:
        return _drawn(_classes_in(root, settings, hint), ("validation", "test"), settings)
    parts = {"train": _classes_in(root / "train", settings, hint)}
    for name, spellings in (("validation", _VALIDATION_NAMES), ("test", ("test",))):
        found = [spelling for spelling in spellings if spelling in folders]
        if found:
            parts[name] = _classes_in(root / found[0], settings, hint)
    missing = tuple(name for name in ("validation", "test") if name not in parts)
    return parts | _drawn(parts["train"], missing, settings)


def _classes_in(folder: Path, settings: Options, hint: str) -> Files:
    """The images below a folder of classes."""
    found: Files = {}
    for place in sorted(folder.iterdir()):
        if place.name.startswith(".") or not place.is_dir():
            continue
        images = [file for file in place.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
        if not images:
            raise DataError(f"data.source: {place} holds no image ({', '.join(sorted(SUFFIXES))})")
        found[place.name] = _limited(sorted(images), settings)
    if not found:
        raise DataError(f"data.source: {folder} has no folder of images per class{hint}")
    return found


def _limited(images: list[Path], settings: Options) -> list[Path]:
    if not settings.limit or len(images) <= settings.limit:
        return images
    chosen = np.random.default_rng(settings.seed).choice(len(images), settings.limit, replace=False)
    return [images[index] for index in np.sort(chosen)]


def _drawn(pool: Files, names: tuple[str, ...], settings: Options) -> dict[str, Files]:
    """Train and the named splits, drawn from each class's images by the shares of the options."""
    shares = {name: getattr(settings, name) for name in names}
    if sum(shares.values()) >= 1 or not all(shares.values()):
        asked = ", ".join(f"{name} {share}" for name, share in shares.items())
        raise RecipeError(f"{_OPTIONS_KEY}: the shares ({asked}) must each be above 0 and leave something for training")
    parts: dict[str, Files] = {name: {} for name in ("train", *names)}
    for label, images in pool.items():
        order = np.random.default_rng(settings.seed).permutation(len(images))
        counts = {name: max(1, round(share * len(images))) for name, share in shares.items()}
        if sum(counts.values()) >= len(images):
            raise DataError(f"data.source: class {label!r} has {len(images)} images, too few to draw {' and '.join(names)} from")
        start = 0
        for name, count in (*counts.items(), ("train", len(images) - sum(counts.values()))):
            parts[name][label] = [images[index] for index in np.sort(order[start : start + count])]
            start += count
    return parts


class _Reader:
    """Reads one image after the other into the same form."""

    def __init__(self, root: Path, settings: Options, mean: np.ndarray, std: np.ndarray) -> None:
        self._root = root
        self._mode = "L" if settings.grey else "RGB"
        self._mean, self._std = mean, std
        size = settings.size
        self._size = (size, size) if isinstance(size, int) else size
        self._first: tuple[str, tuple[int, ...]] | None = None

    def read(self, file: Path) -> np.ndarray:
        """One image as float32[channels, height, width]. Raises DataError naming a file that is no readable image."""
        name = file.relative_to(self._root.parent)
        pixels = self._opened(file, self._pixels)
        if self._first is None:
            self._first = (file.name, pixels.shape)
        first, shape = self._first
        if pixels.shape != shape:
            raise DataError(
                f"data.source: {name} is {pixels.shape[2]} x {pixels.shape[1]} pixels, "
                f"{first} {shape[2]} x {shape[1]}; set {_OPTIONS_KEY}.size"
            )
        normalised: np.ndarray = (pixels - self._mean) / self._std
        return normalised

    def _opened(self, file: Path, read: Callable[[Image.Image, Path], np.ndarray]) -> np.ndarray:
        name = file.relative_to(self._root.parent)
        try:
            with Image.open(file) as image:
                return read(image, name)
        except DataError:
            raise
        except Exception as error:  # Pillow's decoders fail in many ways: OSError, SyntaxError, struct.error, EOFError, ...
            raise DataError(f"data.source: {name} is not a readable image: {str(error).replace(str(file), name.name)}") from error

    def read_raw(self, file: Path) -> np.ndarray:
        """One image as uint8[height, width, 3]. Raises as `read`."""
        return self._opened(file, lambda image, name: np.asarray(self._upright(image, name)))

    def _upright(self, image: Image.Image, name: Path) -> Image.Image:
        if image.mode[0] in "IF":
            raise DataError(f"data.source: {name} has more than 8 bits a channel (mode {image.mode}); convert it to 8 bits")
        return ImageOps.exif_transpose(image).convert(self._mode)

    def _pixels(self, image: Image.Image, name: Path) -> np.ndarray:
        upright = self._upright(image, name)
        if self._size is not None:
            height, width = self._size
            upright = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
        array = np.asarray(upright, np.float32) / 255
        return array[np.newaxis] if array.ndim == 2 else array.transpose(2, 0, 1)


def _raw_examples(
    files: Mapping[str, list[Path]], classes: list[str], reader: _Reader
) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """One image after the other, read as it is asked for."""
    named = [(file, classes.index(label)) for label, images in files.items() for file in images]
    return (reader.read_raw(file) for file, _ in named), np.array([label for _, label in named], np.int64)


def _examples(files: Mapping[str, list[Path]], classes: list[str], reader: _Reader) -> tuple[np.ndarray, np.ndarray]:
    named = [(file, classes.index(label)) for label, images in files.items() for file in images]
    first = reader.read(named[0][0])
    images = np.empty((len(named), *first.shape), np.float32)
    for row, (file, _) in enumerate(named):
        images[row] = reader.read(file)
    return images, np.array([label for _, label in named], np.int64)
