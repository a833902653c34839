"""Several processes train as one would, and one line says what went wrong in any of them."""

import os
import signal
import time

import pytest
import torch

from toolchain.errors import RecipeError, StageError
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.record import EpochResult
from toolchain.train import launch
from toolchain.train.parallel import Crew

TWO = "train.processes=2"
PLAIN = 'model.network="breast_cancer.py:plain"'
WORKER = """

def loss(outputs, targets):
    import os, signal
    from torch.nn import functional

    if os.environ.get("RANK") == "1":
        {act}
    return functional.cross_entropy(outputs, targets)
"""


class Listener(Silent):
    def __init__(self) -> None:
        super().__init__()
        self.ticks: list[tuple[int, int]] = []
        self.epochs: list[EpochResult] = []

    def tick(self, done: int, of: int, text: str) -> None:
        self.ticks.append((done, of))

    def epoch(self, result: EpochResult) -> None:
        self.epochs.append(result)


def weights(stored) -> dict[str, torch.Tensor]:
    return torch.load(stored.folder / stored.value.weights, weights_only=True)


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_two_processes_find_the_weights_that_one_finds(bench):
    """The gradient of a batch is the same mean, summed in another order. Rounding is 1e-7 of it, and AdamW divides by the gradient's
    size, which can raise that a hundredfold; after 21 steps 1e-4 is far above it, and far below the 0.01 of another seed."""
    one = bench.train(PLAIN)
    bench.progress = Listener()
    two = bench.train(PLAIN, TWO)
    training = two.value.training
    assert bench.progress.ticks == [(1, 3), (2, 3), (3, 3)]
    assert bench.progress.epochs == list(training.history)
    assert bench.progress.notes == []
    assert training.conditions == ("2 processes",)
    assert [epoch.metric for epoch in training.history] == [epoch.metric for epoch in one.value.training.history]
    assert 0 < furthest(weights(one), weights(two)) < 1e-4
    assert furthest(weights(one), weights(bench.train(PLAIN, "train.seed=4"))) > 1e-2


@pytest.mark.slow
def test_two_processes_that_were_interrupted_resume_with_the_same_weights(bench, make_bench):
    """With dropout, drawn apart in each process. The worker of rank 0 ends itself after the first of six epochs, each over a second."""
    slow = bench.module.read_text() + WORKER.format(act="pass").replace(
        "    return", "    import time; time.sleep(0.15)\n    return"
    )
    once = slow + (
        "\n_calls = [0]\n_loss = loss\n\ndef loss(outputs, targets):\n    _calls[0] += 1\n"
        "    import os, pathlib, signal\n    mark = pathlib.Path(__file__).with_name('died')\n"
        "    if _calls[0] == 24 and os.environ.get('RANK') == '0' and not mark.exists():\n"
        "        mark.touch(); os.kill(os.getpid(), signal.SIGKILL)\n    return _loss(outputs, targets)\n"
    )
    bench.module.write_text(once)
    settings = (TWO, 'train.loss="breast_cancer.py:loss"')
    with pytest.raises(StageError, match="worker 0 was ended by SIGKILL"):
        bench.train(*settings)
    resumed = bench.train(*settings)
    assert resumed.value.training.resumed_epoch == 2
    other = make_bench("whole")
    other.module.write_text(once)
    (other.folder / "died").touch()
    assert furthest(weights(resumed), weights(other.train(*settings))) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (
            'from toolchain.errors import DataError; raise DataError("row 7 is not a number")',
            "DataError",
            "^row 7 is not a number$",
        ),
        ('raise KeyError("colour")', "StageError", "^train.processes: worker 1 failed: KeyError: 'colour'$"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "StageError", "^train.processes: worker 1 was ended by SIGKILL$"),
    ],
    ids=["a foreseen error", "any error", "killed"],
)
def test_one_line_says_what_failed_in_which_worker(act, error, words, bench):
    bench.module.write_text(bench.module.read_text() + WORKER.format(act=act))
    started = time.monotonic()
    with pytest.raises(Exception, match=words) as caught:
        bench.train(TWO, 'train.loss="breast_cancer.py:loss"')
    assert type(caught.value).__name__ == error
    assert time.monotonic() - started < 300  # the other worker is ended, it does not wait for its peer


class Interrupt(Silent):
    def tick(self, done: int, of: int, text: str) -> None:
        raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupt_ends_the_workers(bench, monkeypatch):
    """The workers' process group is that of the agent."""
    started = []
    real = launch.subprocess.Popen

    def spy(*arguments, **options):
        started.append(real(*arguments, **options))
        return started[0]

    monkeypatch.setattr(launch.subprocess, "Popen", spy)
    bench.progress = Interrupt()
    with pytest.raises(KeyboardInterrupt):
        bench.train(TWO, "train.epochs=1000", "train.patience=0")
    with pytest.raises(ProcessLookupError):
        os.killpg(started[0].pid, signal.SIGKILL)


def test_a_batch_too_small_for_all_is_refused():
    Crew(0, 4).require_rows(8)
    with pytest.raises(RecipeError, match=r"train.processes = 4 leaves some of them fewer than 2 rows of a batch of 7"):
        Crew(0, 4).require_rows(7)


def test_every_row_is_in_one_share():
    rows = torch.arange(11)
    shares = [Crew(rank, 3).part(rows) for rank in range(3)]
    assert torch.equal(torch.cat(shares), rows)
    assert [len(share) for share in shares] == [4, 4, 3]
    assert Crew().part(rows) is rows
