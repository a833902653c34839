"""Does a batch run that was killed anywhere go on to the same bytes, without doing a chunk again?"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from runtime.batch.answers import Answerer
from runtime.batch.job import Work
from runtime.errors import BatchError, RequestError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def source(tmp_path, rows):
    np.save(tmp_path / "in.npy", rows)
    return tmp_path / "in.npy"


@pytest.fixture
def stopping(monkeypatch):
    """Let a run answer so many chunks, then break off; lists the chunks answered."""
    answered = []
    real = Answerer.answer

    def stop_after(count):
        def answer(self, rows):
            if len(answered) == count:
                raise KeyboardInterrupt
            answered.append(rows.first)
            return real(self, rows)

        monkeypatch.setattr(Answerer, "answer", answer)
        return answered

    return stop_after


@pytest.mark.parametrize(
    "suffix", [".npz", pytest.param(".parquet", marks=pytest.mark.slow), pytest.param("", marks=pytest.mark.slow)]
)
def test_killed_anywhere_it_goes_on_to_the_same_bytes(artifact, tmp_path, rows, suffix):
    (tmp_path / "in").mkdir()
    for index, row in enumerate(rows):
        np.save(tmp_path / "in" / f"{index:02}.npy", row if index % 20 else row[:2])
    (tmp_path / "runs").mkdir()
    command = [sys.executable, "-m", "tests.runtime.batch.crash", artifact, tmp_path / "in", tmp_path / "runs", suffix]
    done = subprocess.run([*map(str, command)], check=False, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 40


def test_finished_chunks_are_not_done_again(batch, source, stopping, tmp_path):
    answered = stopping(3)
    with pytest.raises(KeyboardInterrupt):
        batch("in.npy", "out.npz")
    assert answered == [0, 8, 16]
    with pytest.raises(RequestError, match="go on with --resume"):
        batch("in.npy", "out.npz")
    stopping(100)
    assert batch("in.npy", "out.npz", resume=True, rows_per_batch=0)["resumed"] == 24
    assert answered == [0, 8, 16, 24, 32, 40, 48]
    again = batch("in.npy", "out.npz", resume=True)
    assert (again["resumed"], again["failed"]) == (50, 0)
    assert len(answered) == 7


def test_another_job_is_not_taken_for_the_one_to_resume(batch, source, stopping, tmp_path, rows):
    stopping(1)
    with pytest.raises(KeyboardInterrupt):
        batch("in.npy", "out.npz")
    with pytest.raises(RequestError, match="another watched"):
        batch("in.npy", "out.npz", resume=True, drift=True)
    with pytest.raises(RequestError, match="has 8 rows per batch"):
        batch("in.npy", "out.npz", resume=True, rows_per_batch=9)
    np.save(source, rows + 1)
    with pytest.raises(RequestError, match="another source"):
        batch("in.npy", "out.npz", resume=True)


def test_a_foreign_result_is_not_taken_for_a_finished_one(batch, source, tmp_path):
    (tmp_path / "out.npz").write_text("mine")
    with pytest.raises(RequestError, match="no record of how it was made"):
        batch("in.npy", "out.npz", resume=True)
    assert (tmp_path / "out.npz").read_text() == "mine"


def test_two_runs_do_not_write_one_result(batch, source, tmp_path):
    with Work(tmp_path / "out.npz").held(), pytest.raises(RequestError, match="another run is writing it"):
        batch("in.npy", "out.npz")


def test_a_damaged_chunk_is_named(batch, source, stopping, tmp_path):
    stopping(2)
    with pytest.raises(KeyboardInterrupt):
        batch("in.npy", "out.npz")
    (tmp_path / "out.npz.work" / "chunk-00000001.npz").write_bytes(b"PK")
    stopping(100)
    with pytest.raises(BatchError, match=r"chunk-00000001\.npz is damaged"):
        batch("in.npy", "out.npz", resume=True)
