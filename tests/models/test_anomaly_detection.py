"""Does anomaly detection read ToyCar as it lies on disk, is its network the published one, and does it build with its own metric?"""

from pathlib import Path

import numpy as np
import pytest

from runtime.contract.artifact import read_manifest
from tests.models.conftest import MODELS, Load, learn, network_of, published_size
from tests.models.sounds import RATE, tone, toy_car, write_wave
from tests.toolchain.conftest import Project
from toolchain.benchmark.scores import roc_auc
from toolchain.data.code import find_callable, loaded
from toolchain.errors import DataError

MODEL = "anomaly_detection"


@pytest.fixture
def cars(tmp_path: Path) -> Path:
    toy_car(tmp_path / "ToyCar", train=2)
    return tmp_path / "ToyCar"


def test_training_is_normal_and_the_official_test_clips_steer_or_judge(load: Load, cars: Path) -> None:
    data = load(MODEL, f"data.options.path={cars}")
    inputs, labels = data.train
    assert (inputs.dtype, inputs.shape) == (np.float32, (4, 1, 128, 200))
    assert not labels.any()
    assert sorted(data.validation[1]) == sorted(data.test[1]) == [0] * 4 + [1] * 4
    (machines,) = data.splits.held_out.slices
    assert machines.name == "machine"


def test_missing_data_says_where_to_get_it(load: Load, cars: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"nowhere holds no ToyCar: get dev_data_ToyCar\.zip from .*train/normal_id_01_00000000\.wav"
    ):
        load(MODEL, f"data.options.path={tmp_path / 'nowhere'}")
    for clip in (cars / "train").iterdir():
        clip.rename(clip.with_name(f"x{clip.name}"))
    with pytest.raises(DataError, match=r"train holds no clip named as normal_id_01_00000000\.wav"):
        load(MODEL, f"data.options.path={cars}")


def test_a_short_clip_is_named(load: Load, cars: Path) -> None:
    write_wave(cars / "test" / "anomaly_id_02_00000001.wav", np.zeros(4 * RATE))
    with pytest.raises(
        DataError, match=r"test/anomaly_id_02_00000001\.wav is not 16 kHz, mono, 16 bit and at least 8 seconds long"
    ):
        load(MODEL, f"data.options.path={cars}")


def test_log_mel_against_its_definition() -> None:
    """One frame and three bands, by sums over the formulas; frame t is centred on sample 512 t."""
    samples = tone(1500, 8.2, np.random.default_rng(1), noise=0.1).astype(np.float32)
    with loaded(find_callable("logmel.py:log_mel", MODELS / MODEL, "test"), "test") as module:
        found = module.log_mel(samples)
    assert found.shape == (128, 200)
    frame = samples[60 * 512 - 512 : 60 * 512 + 512] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024))
    power = np.abs(np.exp(-2j * np.pi * np.outer(np.arange(513), np.arange(1024)) / 1024) @ frame) ** 2
    hertz = np.arange(513) * RATE / 1024
    highest = 15 + np.log(8) / (np.log(6.4) / 27)

    def edge(index: int) -> float:
        mel = highest * index / 129
        return float(mel * 200 / 3 if mel < 15 else 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    for band in (3, 60, 127):
        low, centre, high = edge(band), edge(band + 1), edge(band + 2)
        weights = np.interp(hertz, [low, centre, high], [0, 2 / (high - low), 0])
        assert found[band, 10] == pytest.approx(10 * np.log10(weights @ power), abs=1e-3)


def test_the_network_is_the_published_one_and_hears_what_is_wrong(load: Load, cars: Path) -> None:
    network = network_of(MODEL)
    assert published_size(network) == 269_992
    data = load(MODEL, f"data.options.path={cars}")
    with loaded(find_callable("anomaly_detection.py:loss", MODELS / MODEL, "test"), "test") as module:
        first, last, scores = learn(network, module.loss, data.train, steps=60, rate=0.03)
    assert scores.shape == (4, 1)
    assert last < first / 2
    import torch

    with torch.no_grad():
        scores = network(torch.from_numpy(data.test[0])).numpy()
    assert roc_auc(scores, data.test[1]) == 1.0


def test_a_clip_s_score_is_the_mean_over_its_windows(load: Load, cars: Path) -> None:
    """By hand: five frames side by side, the oldest first, 196 times; each its own mean squared error."""
    import torch

    network = network_of(MODEL).eval()
    torch.manual_seed(0)
    for weights in network.parameters():  # an untrained network answers nearly nothing, whatever the order of its input
        torch.nn.init.normal_(weights, std=0.2)
    clip = load(MODEL, f"data.options.path={cars}").test[0][:1]
    rows = np.stack([clip[0, 0, :, start : start + 5].T.reshape(640) for start in range(196)])
    with torch.no_grad():
        rebuilt = network.layers(torch.from_numpy(rows)).numpy()
        score = network(torch.from_numpy(clip)).item()
    assert score == pytest.approx(float(np.square(rebuilt - rows).mean(axis=1).mean()), rel=1e-4)


@pytest.mark.slow
def test_it_builds_with_its_own_metric(tmp_path: Path) -> None:
    toy_car(tmp_path / "ToyCar", train=8, test=12)
    project = Project(tmp_path, MODEL)
    result = project.build(
        f"data.options.path={tmp_path / 'ToyCar'}", "train.epochs=30", "train.batch_size=4", "train.learning_rate=0.02"
    )
    (target,) = result.targets
    assert target.metrics[0].name == "roc_auc"
    assert target.metrics[0].value > 0.9
    manifest = read_manifest((Path(target.path) / "manifest.json").read_bytes()).value
    assert manifest.output_kind == "anomaly"
    assert manifest.outputs[0].shape == (-1, 1)
