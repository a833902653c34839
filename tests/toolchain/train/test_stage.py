"""The training stage: what its key is made of, and what it leaves when it is interrupted."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from toolchain.errors import RecipeError
from toolchain.pipeline.stage import changes, digest_of
from toolchain.pipeline.upkeep import collect

ROOT = Path(__file__).parents[3]


def weights(bench, stored) -> dict[str, torch.Tensor]:
    return torch.load(stored.folder / stored.value.weights, weights_only=True)


def why(bench, change, *before: str, after: tuple[str, ...] | None = None) -> str:
    """What a change makes the stage run for, "" where it makes it not run."""
    old = bench.training(*before).stage().ingredients()
    change()
    return changes(old, bench.training(*(before if after is None else after)).stage().ingredients())


def edit(path: Path, old: str, new: str):
    def change() -> None:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def test_the_code_of_the_augmentation_counts_and_its_comments_do_not(bench):
    augment = 'train.augment="breast_cancer.py:scaling"'
    assert "code of the augment changed" in why(bench, edit(bench.module, "0.1 * torch", "0.2 * torch"), augment)
    assert why(bench, edit(bench.module, "import torch\n", "import torch  # drawn once a batch\n"), augment) == ""


def test_the_starting_weights_count_by_their_content_not_their_name(bench):
    one, two = bench.folder / "one.pt", bench.folder / "two.pt"
    torch.save({"1.weight": torch.zeros(32, 30)}, one)
    two.write_bytes(one.read_bytes())
    start = 'train.weights="one.pt"'
    assert why(bench, lambda: None, start, after=('train.weights="two.pt"',)) == ""
    assert why(bench, lambda: torch.save({"1.weight": torch.ones(32, 30)}, one), start) == "starting weights changed"


def test_training_starts_from_the_weights_and_keeps_what_is_frozen(bench):
    given = torch.full((32, 30), 0.5)
    torch.save({"1.weight": given, "4.weight": torch.zeros(7, 32)}, bench.folder / "start.pt")
    stored = bench.train('train.weights="start.pt"', 'train.freeze=["1.weight"]')
    assert torch.equal(weights(bench, stored)["1.weight"], given)
    assert any("1 of 2 tensors have another shape" in note for note in bench.progress.notes)
    with pytest.raises(RecipeError, match=r"train.weights: there is no file 'absent.pt'"):
        bench.train('train.weights="absent.pt"')


def test_an_augmentation_that_is_no_transform_is_named(bench):
    with pytest.raises(RecipeError, match=r"train\.augment: .* returned dict; expected a transform"):
        bench.train('train.augment="breast_cancer.py:splits"')


def test_a_build_killed_while_training_resumes_and_cleans_up(bench, make_bench):
    """The second training goes on after the first's last whole epoch, ends with the bytes of one that was never killed, and
    leaves nothing behind; a changed recipe starts for itself."""
    command = [sys.executable, "-m", "tests.toolchain.train.dying", str(bench.folder.parent)]
    killed = subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    assert len(list(bench.cache.partial.iterdir())) == 1
    other = bench.train("train.epochs=4", "train.seed=1")
    assert other.value.training.resumed_epoch == 0
    resumed = bench.train("train.epochs=4")
    assert resumed.value.training.resumed_epoch == 2
    assert list(bench.cache.partial.iterdir()) == []
    whole = make_bench("whole").train("train.epochs=4")
    names = [whole.value.weights, *whole.value.reference]
    assert [(resumed.folder / name).read_bytes() for name in names] == [(whole.folder / name).read_bytes() for name in names]


def test_gc_drops_what_nobody_resumed(bench):
    for name, age_s in (("old", 1000), ("new", 0)):
        (bench.cache.partial / name).mkdir()
        file = bench.cache.partial / name / "state.pt"
        file.write_bytes(b"state")
        os.utime(file, (time.time() - age_s,) * 2)
    collect(bench.cache, unused_since=time.time() - 500)
    assert [path.name for path in bench.cache.partial.iterdir()] == ["new"]


def test_a_partial_training_is_kept_under_the_stage_s_own_key(bench):
    training = bench.training()
    key = digest_of(training.stage().ingredients())
    assert training._checkpoints()._path.parent == bench.cache.partial / key


def test_a_no_op_build_loads_no_torch():
    code = "import sys, toolchain.train.stage, toolchain.pipeline.build; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
