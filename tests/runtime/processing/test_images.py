"""Do the image steps give what Pillow and torchvision give?

Tolerances: uint8 within one level, since Pillow rounds between the two axes and in fixed point; floats within 1e-5 of a range
of 1, since torch sums float32 in another order.
"""

import numpy as np
import pytest
from PIL import Image, ImageOps

from runtime.contract.artifact import Step
from runtime.errors import RequestError
from runtime.processing.pipeline import Preparation

SIZES = [((40, 60), (16, 24)), ((37, 53), (64, 90)), ((224, 150), (32, 96)), ((5, 7), (1, 1)), ((1, 1), (3, 4))]


def run(name, image, **options):
    return Preparation([Step(name=name, options=options)]).one(image)


@pytest.fixture
def picture():
    """A smooth ground with noise, so that neither a shifted nor a dropped pixel can hide."""

    def make(height, width, channels=3):
        rows, columns = np.mgrid[:height, :width]
        smooth = 100 + 80 * np.sin(rows / 9 + np.arange(channels)[:, None, None]) * np.cos(columns / 7)
        noise = np.random.default_rng(0).normal(0, 20, (channels, height, width))
        return np.clip(smooth + noise, 0, 255).astype(np.uint8).transpose(1, 2, 0)

    return make


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize(("method", "pillow"), [("bilinear", Image.Resampling.BILINEAR), ("nearest", Image.Resampling.NEAREST)])
def test_resize_is_pillow_s(picture, old, new, method, pillow):
    image = picture(*old)
    found = run("resize", image, height=new[0], width=new[1], method=method)
    wanted = np.asarray(Image.fromarray(image).resize((new[1], new[0]), pillow))
    assert (found.dtype, found.shape) == (np.uint8, (*new, 3))
    assert np.abs(found.astype(int) - wanted).max() <= (1 if method == "bilinear" else 0)


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize("antialias", [True, False])
def test_resize_of_floats_is_torchvision_s(picture, old, new, antialias):
    import torch
    from torchvision.transforms.v2 import functional

    image = picture(*old).astype(np.float32) / 255
    found = run("resize", image, height=new[0], width=new[1], antialias=antialias)
    wanted = functional.resize(torch.from_numpy(image.transpose(2, 0, 1).copy()), list(new), antialias=antialias)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.transpose(2, 0, 1), wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize(("old", "new"), SIZES[:3])
def test_resize_to_cover_is_pillow_s_fit(picture, old, new):
    image = picture(*old)
    found = run("resize", image, height=new[0], width=new[1], fit="cover")
    wanted = np.asarray(ImageOps.fit(Image.fromarray(image), (new[1], new[0]), Image.Resampling.BILINEAR))
    assert np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("size", [(10, 11), (21, 20), (7, 1)])
def test_center_crop_is_torchvision_s(picture, size):
    import torch
    from torchvision.transforms.v2 import functional

    image = picture(21, 20)
    wanted = functional.center_crop(torch.from_numpy(image.transpose(2, 0, 1).copy()), list(size)).numpy()
    np.testing.assert_array_equal(run("center_crop", image, height=size[0], width=size[1]), wanted.transpose(1, 2, 0))
    with pytest.raises(RequestError, match="20 x 21 pixels is too small to cut 20 x 22"):
        run("center_crop", image, height=22, width=20)


def test_grayscale_is_pillow_s_to_the_bit_and_close_in_floats(picture):
    image = np.concatenate([picture(64, 64), np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)])
    found = run("grayscale", image)
    np.testing.assert_array_equal(found[..., 0], np.asarray(Image.fromarray(image).convert("L")))
    np.testing.assert_allclose(run("grayscale", image / 255)[..., 0] * 255, found[..., 0], atol=0.51)


def test_to_float_and_normalize_are_torchvision_s(picture):
    import torch
    from torchvision.transforms.v2 import functional

    image = picture(9, 8)
    tensor = functional.to_dtype(torch.from_numpy(image.transpose(2, 0, 1).copy()), torch.float32, scale=True)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    steps = [Step(name="to_float"), Step(name="normalize", options={"mean": "0.485, 0.456,0.406", "std": "0.229,0.224,0.225"})]
    found = Preparation([*steps, Step(name="channels_first")]).one(image)
    np.testing.assert_allclose(found, functional.normalize(tensor, mean, std).numpy(), rtol=1e-6, atol=1e-6)
    late = Step(name="normalize", options={**steps[1].options, "channels": "first"})
    np.testing.assert_array_equal(Preparation([steps[0], Step(name="channels_first"), late]).one(image), found)


def test_to_float_of_samples_and_scale():
    np.testing.assert_array_equal(run("to_float", np.array([-32768, 0, 16384], np.int16)), [-1, 0, 0.5])
    np.testing.assert_array_equal(run("to_float", np.array([0, 65535], np.uint16)), [0, 1])
    np.testing.assert_array_equal(run("scale", np.array([0, 255], np.uint8), factor="0.5", offset="-1"), [-1, 126.5])


def test_steps_leave_their_argument_alone(picture):
    image = picture(12, 12)
    before = image.copy()
    steps = [("resize", {"height": 6, "width": 6}), ("to_float", {}), ("normalize", {"mean": "0.5", "std": "0.5"})]
    Preparation([Step(name=name, options=options) for name, options in steps]).one(image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("image", [np.zeros((4, 4)), np.zeros((0, 4, 3)), np.array([["a"]]), np.zeros((2, 2, 3), bool)])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(RequestError, match="expected an image"):
        run("resize", image, height=2, width=2)
    with pytest.raises(RequestError, match="3 channels, the image has 1"):
        run("grayscale", np.zeros((2, 2, 1), np.uint8))
    with pytest.raises(RequestError, match="3 numbers as mean"):
        run("normalize", np.zeros((2, 2, 1)), mean="1,2,3", std="1")
