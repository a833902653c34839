"""Do the painted shapes lie as the recipe expects them?"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.models.conftest import MODELS, Load, network_of
from toolchain.errors import DataError

MODEL = "image_folder"


def test_the_painted_shapes_are_read_by_the_recipe(load: Load, tmp_path: Path) -> None:
    paint = [sys.executable, str(MODELS / MODEL / "make_images.py"), "--count", "8"]
    for name in ("images", "again"):
        subprocess.run([*paint, "--to", str(tmp_path / name)], check=True, capture_output=True)
    first, again = ((tmp_path / name / "circle" / "003.png").read_bytes() for name in ("images", "again"))
    assert first == again
    data = load(MODEL, f"data.source=imagefolder:{tmp_path / 'images'}")
    assert data.splits.steering.classes == ("circle", "square", "triangle")
    assert data.train[0].shape == (18, 3, 224, 224)
    assert data.splits.notes == ()


def test_without_images_the_recipe_says_how_to_paint_some(load: Load, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*nowhere; python make_images\.py paints some"):
        load(MODEL, f"data.source=imagefolder:{tmp_path / 'nowhere'}")


def test_the_network_is_torchvision_s_with_a_head_for_the_classes() -> None:
    import torch

    network = network_of(MODEL).eval()
    with torch.no_grad():
        assert network(torch.from_numpy(np.zeros((1, 3, 224, 224), np.float32))).shape == (1, 3)
