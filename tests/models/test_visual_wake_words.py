"""Does visual wake words read vw_coco2014_96 as it lies on disk, and is its network the published one?"""

from pathlib import Path

import numpy as np
import pytest

from tests.models.conftest import Load, learn, network_of, published_size
from tests.models.pictures import visual_wake_words
from toolchain.errors import DataError

MODEL = "visual_wake_words"


def test_the_folder_becomes_splits_and_the_network_learns(load: Load, tmp_path: Path) -> None:
    import torch

    visual_wake_words(tmp_path / "vw_coco2014_96")
    data = load(MODEL, f"data.source=imagefolder:{tmp_path / 'vw_coco2014_96'}")
    assert data.splits.steering.classes == ("non_person", "person")
    assert [len(labels) for _, labels in (data.train, data.validation, data.test)] == [16, 4, 4]
    inputs, labels = data.train
    assert (inputs.dtype, inputs.shape[1:]) == (np.float32, (3, 96, 96))
    assert inputs[labels == 1, :, 50, 48].mean() > 0.8 > inputs[labels == 0, :, 50, 48].mean()
    network = network_of(MODEL)
    assert published_size(network) == 221_794
    first, last, outputs = learn(network, torch.nn.functional.cross_entropy, data.train, steps=10)
    assert outputs.shape == (16, 2)
    assert last < first / 2


def test_missing_data_says_where_to_get_it(load: Load, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"there is no folder .*nowhere; unpack MLPerf Tiny's vw_coco2014_96\.tar\.gz there: person/"
    ):
        load(MODEL, f"data.source=imagefolder:{tmp_path / 'nowhere'}")
