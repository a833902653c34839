"""Does keyword spotting read Speech Commands as it lies on disk, and is its network the published one?"""

from pathlib import Path

import numpy as np
import pytest

from runtime.processing.pipeline import Preparation
from tests.models.conftest import Load, learn, network_of, published_size, recipe_of
from tests.models.sounds import RATE, WORDS, speech_commands, tone, write_wave
from toolchain.errors import DataError
from toolchain.recipe import processing_of

MODEL = "keyword_spotting"


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    speech_commands(tmp_path / "commands")
    return tmp_path / "commands"


def test_the_two_lists_decide_the_splits(load: Load, commands: Path) -> None:
    data = load(MODEL, f"data.options.path={commands}")
    assert data.splits.steering.classes == (*WORDS, "silence", "unknown")
    for inputs, labels in (data.train, data.validation, data.test):
        assert (inputs.dtype, inputs.shape) == (np.float32, (24, 1, 49, 10))
        assert np.bincount(labels).tolist() == [2] * 12, "silence and unknown words come as often as one word"


def test_a_clip_that_changes_lists_changes_splits(load: Load, commands: Path) -> None:
    before = load(MODEL, f"data.options.path={commands}")
    moved = (commands / "testing_list.txt").read_text().splitlines()[0]
    with (commands / "validation_list.txt").open("a") as file:
        file.write(f"{moved}\n")
    (commands / "testing_list.txt").write_text("\n".join((commands / "testing_list.txt").read_text().splitlines()[1:]))
    after = load(MODEL, f"data.options.path={commands}")
    counts = [np.bincount(part.validation[1])[WORDS.index("down")] for part in (before, after)]
    assert counts == [2, 3]


def test_missing_data_says_where_to_get_it(load: Load, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"holds no Speech Commands: get speech_commands_v0\.02\.tar\.gz from .*WORD/\*\.wav"
    ) as error:
        load(MODEL, f"data.options.path={tmp_path / 'nowhere'}")
    assert "\n" not in str(error.value)


def test_bad_sounds_are_named(load: Load, commands: Path) -> None:
    (commands / "no" / "00000000_nohash_0.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"no/00000000_nohash_0\.wav is not a readable WAV file"):
        load(MODEL, f"data.options.path={commands}")
    write_wave(commands / "no" / "00000000_nohash_0.wav", np.zeros(8000), rate=8000)
    with pytest.raises(DataError, match=r"no/00000000_nohash_0\.wav is not 16 kHz, mono, 16 bit"):
        load(MODEL, f"data.options.path={commands}")


def test_mfcc_against_its_definition() -> None:
    """Band by band and frame by frame, by sums over the formulas instead of matrices."""
    generator = np.random.default_rng(1)
    samples = tone(700, 1.0, generator, noise=0.1).astype(np.float32)
    found = Preparation(processing_of(recipe_of(MODEL)).pre).one(samples)
    assert found.shape == (1, 49, 10)
    found = found[0]
    frame = samples[7 * 320 : 7 * 320 + 480] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(480) / 480))
    angles = -2j * np.pi * np.outer(np.arange(257), np.arange(480)) / 512
    magnitudes = np.abs(np.exp(angles) @ frame)
    mels = [1127 * np.log(1 + row * RATE / 512 / 700) for row in range(257)]
    low, high = 1127 * np.log(1 + 20 / 700), 1127 * np.log(1 + 4000 / 700)
    width = (high - low) / 41
    logs = []
    for band in range(40):
        centre = low + (band + 1) * width
        weights = [max(0.0, 1 - abs(mel - centre) / width) for mel in mels]
        logs.append(np.log(np.dot(weights, magnitudes) + 1e-6))
    for k in range(10):
        twice = 2 * sum(value * np.cos(np.pi * k * (2 * band + 1) / 80) for band, value in enumerate(logs))
        assert found[7, k] == pytest.approx(twice / np.sqrt(80), abs=1e-3)


def test_the_network_is_the_published_one_and_learns(load: Load, commands: Path) -> None:
    import torch

    network = network_of(MODEL)
    assert published_size(network) == 24_908
    data = load(MODEL, f"data.options.path={commands}")
    first, last, outputs = learn(network, torch.nn.functional.cross_entropy, data.train)
    assert outputs.shape == (24, 12)
    assert last < first / 2
