"""Does image classification read CIFAR-10 as it lies on disk, and nothing a pickle should not ask for? Is its network published?"""

import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.models.conftest import Load, learn, network_of, published_size
from tests.models.pictures import CIFAR_NAMES, cifar10, python2_pickle
from toolchain.errors import DataError

MODEL = "image_classification"


@pytest.fixture
def batches(tmp_path: Path) -> Path:
    cifar10(tmp_path / "cifar-10-batches-py")
    return tmp_path / "cifar-10-batches-py"


def test_five_batches_train_and_the_sixth_judges(load: Load, batches: Path) -> None:
    data = load(MODEL, f"data.options.path={batches}")
    assert data.splits.steering.classes == CIFAR_NAMES
    assert [len(labels) for _, labels in (data.train, data.validation, data.test)] == [90, 10, 20]
    for images, labels in (data.train, data.validation, data.test):
        assert (images.dtype, images.shape[1:]) == (np.float32, (3, 32, 32))
        first = np.round(images[:, :, 0, 0] * 255).astype(int)
        assert np.array_equal(first, np.stack([labels, np.full(len(labels), 10), np.full(len(labels), 20)], axis=1))


def test_the_generated_batches_are_written_as_python_2_wrote_them(batches: Path) -> None:
    contents = (batches / "data_batch_1").read_bytes()
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in contents
    assert list(pickle.loads(contents, encoding="bytes")) == [b"batch_label", b"labels", b"data", b"filenames"]


def test_batches_of_a_newer_numpy_are_read_too(load: Load, batches: Path) -> None:
    path = batches / "data_batch_3"
    path.write_bytes(path.read_bytes().replace(b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n"))
    assert load(MODEL, f"data.options.path={batches}").splits.steering.train.rows == 90


class Program:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("a pickle ran",)


def test_a_pickle_that_is_a_program_does_not_run(load: Load, batches: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (batches / "data_batch_2").write_bytes(python2_pickle({"data": Program(), "labels": []}))
    with pytest.raises(DataError, match=r"data_batch_2: asks for .*print, which no CIFAR-10 batch needs"):
        load(MODEL, f"data.options.path={batches}")
    assert "a pickle ran" not in capsys.readouterr().out


def test_a_truncated_batch_is_named(load: Load, batches: Path) -> None:
    path = batches / "data_batch_5"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="data_batch_5: "):
        load(MODEL, f"data.options.path={batches}")


def test_missing_data_says_where_to_get_it(load: Load, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no CIFAR-10: get cifar-10-python\.tar\.gz from .*unpack it there \(data_batch_1"):
        load(MODEL, f"data.options.path={tmp_path}")


def test_the_network_is_the_published_one_and_learns(load: Load, batches: Path) -> None:
    import torch

    network = network_of(MODEL)
    assert published_size(network) == 78_666
    data = load(MODEL, f"data.options.path={batches}")
    first, last, outputs = learn(network, torch.nn.functional.cross_entropy, data.train, steps=12)
    assert outputs.shape == (90, 10)
    assert last < first / 2
