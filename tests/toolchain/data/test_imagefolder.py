"""Do images on disk become the right arrays, and is what cannot be read named?"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toolchain.data.imagefolder import splits
from toolchain.data.load import load_data
from toolchain.errors import DataError, RecipeError
from toolchain.pipeline.cache import StageCache
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.record import StageRun
from toolchain.pipeline.stage import Runner
from toolchain.recipe import parse_recipe

COLOURS = {"blue": (10, 20, 200), "red": (200, 20, 10)}


def paint(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (8, 6), mark: int = 0) -> None:
    """One image of one colour, width by height, with a pixel that tells it from the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, colour)
    image.putpixel((0, 0), (mark, mark, mark))
    image.save(path)


def classes_in(root: Path, count: int = 20, suffix: str = "png") -> None:
    for name, colour in COLOURS.items():
        for index in range(count):
            paint(root / name / f"{index}.{suffix}", colour, mark=index)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    classes_in(tmp_path / "images")
    return tmp_path / "images"


def test_folders_of_classes_are_drawn_into_splits(images: Path) -> None:
    result = splits(str(images))
    assert result["classes"] == ["blue", "red"]
    assert (result["layout"], result["range"]) == ("NCHW", (0.0, 1.0))
    sizes = {name: len(result[name][1]) for name in ("train", "validation", "test")}
    assert sizes == {"train": 28, "validation": 6, "test": 6}
    pixels, labels = result["train"]
    assert (pixels.dtype, pixels.shape) == (np.float32, (28, 3, 6, 8))
    assert np.bincount(labels).tolist() == [14, 14]
    blue = pixels[labels == 0][0][:, 3, 3]
    assert np.allclose(blue, np.array(COLOURS["blue"]) / 255)
    marks = [round(float(image[0, 0, 0]) * 255) for name in sizes for image in result[name][0][result[name][1] == 0]]
    assert sorted(marks) == list(range(20)), "each image is in one split, once"


def test_the_draw_is_decided_by_the_seed(images: Path) -> None:
    first, again, other = splits(str(images)), splits(str(images)), splits(str(images), seed=1)
    assert np.array_equal(first["test"][0], again["test"][0])
    assert not np.array_equal(first["test"][0], other["test"][0])


def test_shares_and_limit(images: Path) -> None:
    result = splits(str(images), limit=10, validation=0.2, test=0.4)
    assert [len(result[name][1]) for name in ("train", "validation", "test")] == [8, 4, 8]


def test_folders_of_splits_are_kept(tmp_path: Path) -> None:
    classes_in(tmp_path / "train", 5)
    classes_in(tmp_path / "val", 3)
    classes_in(tmp_path / "test", 2)
    result = splits(str(tmp_path))
    assert [len(result[name][1]) for name in ("train", "validation", "test")] == [10, 6, 4]
    assert np.round(result["train"][0][:, 0, 0, 0] * 255).tolist() == [0, 1, 2, 3, 4] * 2, "classes, then files, by name"


def test_a_split_that_is_missing_is_drawn_from_training(tmp_path: Path) -> None:
    classes_in(tmp_path / "train", 10)
    classes_in(tmp_path / "test", 2)
    result = splits(str(tmp_path), validation=0.2)
    assert [len(result[name][1]) for name in ("train", "validation", "test")] == [16, 4, 4]


def test_normalisation(images: Path) -> None:
    plain, normal = splits(str(images)), splits(str(images), mean=[0.5, 0.4, 0.3], std=[0.2, 0.1, 0.5])
    mean, std = np.array([0.5, 0.4, 0.3]).reshape(3, 1, 1), np.array([0.2, 0.1, 0.5]).reshape(3, 1, 1)
    assert np.allclose(normal["test"][0], (plain["test"][0] - mean) / std, atol=1e-5)
    assert normal["range"] == pytest.approx((-4.0, 6.0))


def test_grey_and_size(images: Path) -> None:
    pixels, labels = splits(str(images), grey=True, size=(4, 10))["train"]
    assert pixels.shape[1:] == (1, 4, 10)
    weighted = float(np.dot(COLOURS["red"], (0.299, 0.587, 0.114))) / 255  # ITU-R 601-2, as Pillow's documentation has it
    assert pixels[labels == 1][0, 0, 2, 5] == pytest.approx(weighted, abs=1 / 255)
    assert splits(str(images), size=5)["train"][0].shape[1:] == (3, 5, 5)


def test_scaling_keeps_the_proportions_and_crops_about_the_centre(tmp_path: Path) -> None:
    """Left and right thirds of a wide image are white; the square about its centre is black."""
    for name in ("a", "b"):
        for index in range(4):
            wide = Image.new("RGB", (30, 10), (255, 255, 255))
            wide.paste((0, 0, 0), (10, 0, 20, 10))
            (tmp_path / name).mkdir(exist_ok=True)
            wide.save(tmp_path / name / f"{index}.png")
    assert splits(str(tmp_path), size=10)["train"][0].max() == 0


def test_an_image_turned_by_its_camera_is_turned_back(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(4):
            exif = Image.Exif()
            exif[0x0112] = 6  # orientation: the camera was turned by a quarter
            Image.new("RGB", (6, 4)).save(tmp_path / name / f"{index}.jpg", exif=exif)
    assert splits(str(tmp_path))["train"][0].shape[1:] == (3, 6, 4)


def test_other_files_are_passed_over(images: Path) -> None:
    (images / "red" / "notes.txt").write_text("x")
    (images / "red" / ".hidden.png").write_bytes(b"x")
    (images / ".git").mkdir()
    (images / "labels.csv").write_text("x")
    assert splits(str(images))["classes"] == ["blue", "red"]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def damaged(path: Path) -> None:
    contents = bytearray(path.read_bytes())
    contents[45:55] = b"\0" * 10
    path.write_bytes(contents)


@pytest.mark.parametrize(
    "damage", [truncated, damaged, lambda path: path.write_bytes(b""), lambda path: path.write_text("<html>")]
)
def test_a_corrupt_image_is_named(images: Path, damage: Callable[[Path], object]) -> None:
    damage(images / "red" / "7.png")
    with pytest.raises(DataError, match=r"images/red/7\.png is not a readable image") as caught:
        splits(str(images))
    assert "\n" not in str(caught.value)


def test_a_corrupt_jpeg_is_named(tmp_path: Path) -> None:
    classes_in(tmp_path, 4, "jpg")
    truncated(tmp_path / "blue" / "2.jpg")
    with pytest.raises(DataError, match=r"blue/2\.jpg is not a readable image"):
        splits(str(tmp_path))


def test_sixteen_bits_are_refused_rather_than_clipped(images: Path) -> None:
    Image.fromarray(np.full((6, 8), 40_000, np.uint16)).save(images / "red" / "7.png")
    with pytest.raises(DataError, match=r"red/7\.png has more than 8 bits a channel"):
        splits(str(images))


def test_images_of_several_sizes_need_one(images: Path) -> None:
    paint(images / "red" / "7.png", COLOURS["red"], (9, 6))
    with pytest.raises(DataError, match=r"7\.png is 9 x 6 pixels, \d+\.png 8 x 6; set data\.options\.size"):
        splits(str(images))
    assert splits(str(images), size=6)["train"][0].shape[1:] == (3, 6, 6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "there is no folder .*images; from the shelf"),
        (lambda root: root.mkdir(), "images has no folder of images per class; from the shelf"),
        (lambda root: (root / "a").mkdir(parents=True), r"images/a holds no image \(\.bmp, "),
        (lambda root: paint(root / "a" / "1.png", (1, 2, 3)), "class 'a' has 1 images, too few to draw validation and test from"),
        (
            lambda root: [classes_in(root / "train", 3), classes_in(root / "test", 2), paint(root / "test" / "green" / "1.png", (0, 9, 0))],
            "test has a class 'green' that train has not",
        ),
    ],
)  # fmt: skip
def test_folders_without_the_right_content_are_named(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / "images")
    with pytest.raises(DataError, match=message):
        splits(str(tmp_path / "images"), hint="from the shelf")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"siz": 3}, "unknown field `siz`; an image folder takes size, grey"),
        ({"size": 0}, r"data\.options\.size: pixels are counted from 1"),
        ({"size": [8, -1]}, r"data\.options\.size: pixels are counted from 1"),
        ({"size": [1, 2, 3]}, r"at `\$\.size`"),
        ({"mean": [0.5, 0.5]}, r"data\.options\.mean: 2 numbers for 3 channels"),
        ({"std": 0}, r"data\.options\.std: must be greater than 0"),
        ({"validation": 0.6, "test": 0.5}, r"the shares \(validation 0\.6, test 0\.5\)"),
        ({"test": 0.0}, r"the shares \(validation 0\.15, test 0\.0\) must each be above 0"),
    ],
)
def test_options_that_make_no_sense(images: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        splits(str(images), **options)


def load(folder: Path, options: dict[str, Any] | None = None) -> StageRun:
    document = {
        "model": {"name": "m", "version": "1.0.0", "network": "a.py:b"},
        "data": {"source": "imagefolder:images", "options": options or {}},
    }
    cache = StageCache(folder / "cache")
    runner = Runner(cache, Silent(), "project")
    load_data(runner, parse_recipe(document, "recipe.toml"), folder)
    cache.hashes.save()
    return runner.runs[0]


def test_a_recipe_names_the_folder_and_reads_it_once(images: Path) -> None:
    assert load(images.parent).ran
    assert not load(images.parent).ran


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda images: paint(images / "red" / "7.png", (1, 1, 1)), "file 7.png changed"),
        (lambda images: paint(images / "red" / "new.png", (1, 1, 1)), "folder red changed"),
        (lambda images: (images / "red" / "7.png").unlink(), "folder red changed"),
        (lambda images: (images / "red").rename(images / "crimson"), "folder images changed"),
    ],
)
def test_a_changed_folder_is_read_again(images: Path, change: Callable[[Path], object], why: str) -> None:
    first = load(images.parent)
    change(images)
    again = load(images.parent)
    assert again.ran
    assert why in again.why
    assert again.output != first.output


def test_a_folder_for_a_split_that_appears_is_seen(tmp_path: Path) -> None:
    classes_in(tmp_path / "images" / "train", 10)
    load(tmp_path)
    classes_in(tmp_path / "images" / "test", 3)
    assert load(tmp_path).ran


def test_exchanging_two_images_of_one_name_is_a_change(images: Path) -> None:
    first = load(images.parent)
    blue, red = images / "blue" / "3.png", images / "red" / "3.png"
    blue_bytes, red_bytes = blue.read_bytes(), red.read_bytes()
    blue.write_bytes(red_bytes)
    red.write_bytes(blue_bytes)
    again = load(images.parent)
    assert again.ran
    assert again.output != first.output


def test_options_decide_too(images: Path) -> None:
    load(images.parent)
    assert load(images.parent, {"grey": True}).ran
    assert not load(images.parent, {"grey": True}).ran


def test_the_path_is_named_once(images: Path) -> None:
    with pytest.raises(RecipeError, match=r"data\.options\.path: 'imagefolder:images' already names the path"):
        load(images.parent, {"path": "elsewhere"})
