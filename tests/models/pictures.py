"""Small picture data sets in the form the official ones have on disk."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CIFAR_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined] # the one in Python, whose table of types can be changed
    """Writes text and bytes as Python 2 wrote its strings, as the official batches hold them."""

    dispatch = pickle._Pickler.dispatch.copy()  # type: ignore[attr-defined]

    def save_string(self, value: str | bytes) -> None:
        raw = value.encode("latin-1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


def python2_pickle(value: Any) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def cifar10(root: Path, rows: int = 20) -> None:
    """data_batch_1 to 5, test_batch and batches.meta; the first pixel of each image is its label in red, 10 in green, 20 in blue."""
    root.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        data = generator.integers(0, 256, (rows, 3072)).astype(np.uint8)
        labels = [index % 10 for index in range(rows)]
        data[:, 0], data[:, 1024], data[:, 2048] = labels, 10, 20
        batch = {"batch_label": f"batch {number}", "labels": labels, "data": data, "filenames": [f"{n}.png" for n in range(rows)]}
        (root / name).write_bytes(python2_pickle(batch))
    meta = {"num_cases_per_batch": rows, "label_names": list(CIFAR_NAMES), "num_vis": 3072}
    (root / "batches.meta").write_bytes(python2_pickle(meta))


def visual_wake_words(root: Path, count: int = 12) -> None:
    """person/*.jpg with a light upright figure, non_person/*.jpg without."""
    generator = np.random.default_rng(0)
    for name in ("person", "non_person"):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 120, (96, 96, 3)).astype(np.uint8)
            if name == "person":
                pixels[20:80, 40:56] = 230
            Image.fromarray(pixels).save(root / name / f"COCO_train2014_{index:012}.jpg")
