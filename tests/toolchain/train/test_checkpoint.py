"""A training that was killed ends with the same bytes as one that was not."""

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch

from tests.toolchain.train.small import EVERYTHING, digest, fit, noise
from toolchain.pipeline.progress import Silent
from toolchain.train.checkpoint import FILE_NAME, Checkpoints

ROOT = Path(__file__).parents[3]
CALLS_PER_EPOCH = 7
"""Batches of 100 rows by 16."""


class Interrupts(Silent):
    """Ends the training at the end of an epoch, before its state is written."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self._epoch = epoch

    def tick(self, done: int, of: int, text: str) -> None:
        if done == self._epoch:
            raise KeyboardInterrupt


def interrupt(folder: Path, epoch: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(EVERYTHING, augment=noise, checkpoints=Checkpoints(folder, every_s=0), progress=Interrupts(epoch))


def test_a_training_killed_in_the_middle_of_an_epoch_ends_with_the_same_weights(tmp_path):
    code = f"from tests.toolchain.train.small import die; die({str(tmp_path / 'partial')!r}, {3 * CALLS_PER_EPOCH + 4})"
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    progress = Silent()
    checkpoints = Checkpoints(tmp_path / "partial", every_s=0)
    resumed, result = fit(EVERYTHING, augment=noise, checkpoints=checkpoints, progress=progress)
    whole, expected = fit(EVERYTHING, augment=noise)
    assert result.resumed_epoch == 3
    assert progress.notes == ["training goes on after epoch 3 of 6"]
    assert digest(resumed) == digest(whole)
    plain = [[msgspec.structs.replace(epoch, seconds=0) for epoch in item.history] for item in (result, expected)]
    assert plain[0] == plain[1]
    assert result.best_epoch == expected.best_epoch


@pytest.mark.parametrize("epoch", [1, 2, 6])
def test_wherever_it_was_interrupted(epoch, tmp_path):
    interrupt(tmp_path, epoch)
    resumed, result = fit(EVERYTHING, augment=noise, checkpoints=Checkpoints(tmp_path, every_s=0))
    assert result.resumed_epoch == epoch - 1
    assert digest(resumed) == digest(fit(EVERYTHING, augment=noise)[0])


def test_a_training_that_patience_would_end_is_not_prolonged_by_a_resume(tmp_path):
    settings = msgspec.structs.replace(EVERYTHING, learning_rate=1e-9, ema=0.0, patience=1)
    _, whole = fit(settings, checkpoints=Checkpoints(tmp_path / "one", every_s=0))
    with pytest.raises(KeyboardInterrupt):
        fit(settings, checkpoints=Checkpoints(tmp_path / "two", every_s=0), progress=Interrupts(len(whole.history)))
    _, resumed = fit(settings, checkpoints=Checkpoints(tmp_path / "two", every_s=0))
    assert whole.stopped_early
    assert len(resumed.history) == len(whole.history)


def flip(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


@pytest.mark.parametrize(
    "damage", [flip, lambda data: data[:-1], lambda data: b"", lambda data: data[:32]], ids=["a bit", "a byte", "empty", "cut"]
)
def test_a_damaged_state_is_said_aloud_and_training_begins_anew(damage, tmp_path):
    interrupt(tmp_path, 3)
    path = tmp_path / FILE_NAME
    path.write_bytes(damage(path.read_bytes()))
    progress = Silent()
    anew, result = fit(EVERYTHING, augment=noise, checkpoints=Checkpoints(tmp_path, every_s=0), progress=progress)
    assert len(progress.notes) == 1
    assert "cannot be read" in progress.notes[0]
    assert result.resumed_epoch == 0
    assert digest(anew) == digest(fit(EVERYTHING, augment=noise)[0])


@pytest.mark.parametrize(
    ("key", "value", "words"), [("device", "cuda", "begun on cuda"), ("revision", 0, "revision 0 instead of 1")]
)
def test_a_state_of_another_kind_is_said_aloud(key, value, words, tmp_path, monkeypatch):
    interrupt(tmp_path, 3)
    checkpoints = Checkpoints(tmp_path)
    state = checkpoints.load(torch.device("cpu"), Silent())
    real = torch.save
    monkeypatch.setattr(torch, "save", lambda held, file: real(held | {key: value}, file))
    checkpoints.save(state, torch.device("cpu"), Silent())
    progress = Silent()
    assert checkpoints.load(torch.device("cpu"), progress) is None
    assert words in progress.notes[0]


def test_a_disk_that_takes_no_state_does_not_stop_training(tmp_path):
    (tmp_path / "partial").write_text("a file where the folder should be")
    progress = Silent()
    _, result = fit(EVERYTHING, checkpoints=Checkpoints(tmp_path / "partial" / "key", every_s=0), progress=progress)
    assert len(result.history) == EVERYTHING.epochs
    assert all("a killed training would begin anew" in note for note in progress.notes[1:])


def test_short_epochs_share_a_state(tmp_path):
    fit(EVERYTHING, checkpoints=Checkpoints(tmp_path / "partial", every_s=3600))
    assert not (tmp_path / "partial").exists()
