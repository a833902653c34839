"""Do the painted shapes lie as the recipe expects them?"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.models.conftest import MODELS, Load, network_of
from toolchain.errors import DataError, RecipeError

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
    low, high = data.splits.steering.inputs[0].range
    assert (float(low), float(high)) == pytest.approx(((0 - 0.485) / 0.229, (1 - 0.406) / 0.225), rel=1e-5)


def test_the_device_s_steps_prepare_what_pillow_would(load: Load, tmp_path: Path) -> None:
    """Within one level of 255, of one standard deviation: Pillow rounds between the two axes."""
    paint = [
        sys.executable,
        str(MODELS / MODEL / "make_images.py"),
        "--count",
        "8",
        "--size",
        "50",
        "--to",
        str(tmp_path / "images"),
    ]
    subprocess.run(paint, check=True, capture_output=True)
    source = f"data.source=imagefolder:{tmp_path / 'images'}"
    plain = "data.options={size=224, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]}"
    ours, pillow = load(MODEL, source), load(MODEL, source, plain, "processing={}")
    np.testing.assert_allclose(ours.train[0], pillow.train[0], atol=1.01 / 255 / 0.224)
    np.testing.assert_array_equal(ours.train[1], pillow.train[1])
    with pytest.raises(DataError, match=r"comes example by example, as they are: say how to prepare them in \[processing\] pre"):
        load(MODEL, source, "processing={}")
    with pytest.raises(RecipeError, match=r"data\.options\.raw: size, grey, mean and std are for processing\.pre"):
        load(MODEL, source, "data.options.size=3")


def test_without_images_the_recipe_says_how_to_paint_some(load: Load, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*nowhere; python make_images\.py paints some"):
        load(MODEL, f"data.source=imagefolder:{tmp_path / 'nowhere'}")


def test_the_network_is_torchvision_s_with_a_head_for_the_classes() -> None:
    import torch

    network = network_of(MODEL).eval()
    with torch.no_grad():
        assert network(torch.from_numpy(np.zeros((1, 3, 224, 224), np.float32))).shape == (1, 3)
