"""Does `runtime infer` run batches and raw inputs, and end with the status its outcome has?"""

import io
import json
import subprocess
import sys

import numpy as np
import pytest

from runtime.batch.progress import Progress
from tests.runtime.test_commands import install, release, run, state_dir
from tests.support.artifacts import scores

__all__ = ["install", "release", "run", "state_dir"]


@pytest.fixture
def infer(install, release, run, tmp_path, rows):
    """`runtime infer tiny` on a device where it is installed, with the rows in in.npy."""
    assert install("--root", str(tmp_path / "root.json"))[0] == 0
    np.save(tmp_path / "in.npy", rows)
    return lambda *arguments: run("infer", "tiny", *map(str, arguments))


def test_a_batch_prints_its_summary(infer, tmp_path, rows):
    out = tmp_path / "out.npz"
    status, printed, _ = infer("--batch", tmp_path / "in.npy", "--out", out, "--rows-per-batch", 16, "--drift", "--json")
    summary = json.loads(printed)
    assert (status, summary["rows"], summary["failed"], summary["out"]) == (0, 50, 0, str(out))
    assert summary["drift"]["rows"] == 50
    with np.load(out) as file:
        np.testing.assert_allclose(file["output"], scores(rows, 1), rtol=1e-5)
    status, printed, _ = infer("--batch", tmp_path / "in.npy", "--out", out, "--resume", "--rows-per-batch", 16, "--drift")
    assert status == 0
    assert printed.startswith("50 rows, 0 rejected")
    assert "streams beyond the usual, over 50 rows\n  too few rows to judge by" in printed


def test_a_raw_input_is_prepared_and_decoded(infer, tmp_path, rows):
    np.save(tmp_path / "one.npy", rows[0])
    status, printed, _ = infer(tmp_path / "one.npy", "--raw", "--json")
    exact = np.exp(scores(rows[:1], 1))
    assert status == 0
    np.testing.assert_allclose(json.loads(printed)["output"]["data"], exact / exact.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "what should be run?"),
        (("in.npy", "--strict"), 2, "--strict goes with --batch"),
        (("--batch", "in.npy"), 2, "--batch SOURCE --out FILE"),
        (("--batch", "in.npy", "--out", "x.npz", "--rows-per-batch", "-1"), 2, "at least 1"),
        (("--batch", "bad.npy", "--out", "x.npz"), 4, "batch.failed"),
        (("bad.npy", "--raw"), 2, "cannot be read"),
        (("two.npz", "--raw"), 2, "a raw input is one array, this file has 2"),
    ],
)
def test_failures_are_one_line_and_a_status(infer, tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY")
    np.savez(tmp_path / "two.npz", a=np.zeros(4), b=np.zeros(4))
    found, _, err = infer(*arguments)
    assert found == status
    assert message in err
    assert err.count("\n") == 1


def test_without_the_extra_the_command_names_it(infer, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "runtime.batch.parquet", raising=False)
    status, _, err = infer("--batch", tmp_path / "in.npy", "--out", tmp_path / "out.parquet")
    assert status == 5
    assert err == "runtime: Parquet files need pyarrow; install edgewright[batch] [extra.missing]\n"


def test_a_run_without_parquet_and_pictures_imports_neither():
    program = "import sys, runtime.batch.run; print({'pyarrow', 'PIL', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_progress_is_a_line_now_and_then(monkeypatch):
    now = 100.0
    stream = io.StringIO()
    progress = Progress(4000, 1000, stream, lambda: now)
    progress.at(1100)
    now = 110.0
    progress.at(2000)
    progress.end()
    assert stream.getvalue() == "2000 of 4000 rows, 100 rows/s, 0:00:20 left\n"
    stream.isatty = lambda: True
    stream.truncate(0)
    progress = Progress(10, 0, stream, lambda: now)
    now = 111.0
    progress.at(5)
    progress.end()
    assert stream.getvalue().lstrip("\0") == "\r\x1b[K5 of 10 rows, 5 rows/s, 0:00:01 left\n"
