"""What only an NVIDIA GPU can show: training on it, float16 with scaled gradients, two processes, the conditions that are said."""

import msgspec
import pytest
import torch

from tests.toolchain.train.small import SETTINGS, VALIDATION, fit, noise
from toolchain.train.checkpoint import Checkpoints

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def gpu() -> str:
    """The GPU's name."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no NVIDIA GPU here")
    return torch.cuda.get_device_name()


def test_training_on_the_gpu_is_said(gpu, bench):
    stored = bench.train('train.device="cuda"', "train.epochs=12")
    training = stored.value.training
    assert training.device == "cuda"
    assert training.conditions == (f"GPU {gpu}",)
    assert training.history[training.best_epoch].metric > 0.9
    weights = torch.load(stored.folder / stored.value.weights, weights_only=True)
    assert {value.device.type for value in weights.values()} == {"cpu"}


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_mixed_precision_learns_as_well(precision):
    wide, expected = fit(msgspec.structs.replace(SETTINGS, device="cuda", epochs=20))
    narrow, result = fit(msgspec.structs.replace(SETTINGS, device="cuda", epochs=20, precision=precision))
    assert {value.dtype for value in narrow.state_dict().values()} == {torch.float32, torch.int64}
    best = [item.history[item.best_epoch].metric for item in (expected, result)]
    assert abs(best[0] - best[1]) <= 0.05  # 3 of 60 validation rows
    inputs = VALIDATION.inputs[0].cuda()
    with torch.no_grad():
        difference = (wide.eval()(inputs) - narrow.eval()(inputs)).abs().max()
    assert difference > 0  # it was another arithmetic


def test_an_interrupted_float16_training_resumes(tmp_path):
    from tests.toolchain.train.test_checkpoint import Interrupts

    settings = msgspec.structs.replace(SETTINGS, device="cuda", precision="float16", ema=0.9)
    with pytest.raises(KeyboardInterrupt):
        fit(settings, augment=noise, checkpoints=Checkpoints(tmp_path, every_s=0), progress=Interrupts(3))
    resumed, result = fit(settings, augment=noise, checkpoints=Checkpoints(tmp_path, every_s=0))
    whole, _ = fit(settings, augment=noise)
    assert result.resumed_epoch == 2
    for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)  # a GPU adds in any order


@pytest.mark.slow
def test_two_gpus_see_the_whole_batch(bench):
    if torch.cuda.device_count() < 2:
        pytest.skip(f"needs two GPUs, here are {torch.cuda.device_count()}")
    stored = bench.train('train.device="cuda"', "train.processes=2")
    assert "2 processes" in stored.value.training.conditions
    assert bench.progress.notes == []  # BatchNorm is synchronised
