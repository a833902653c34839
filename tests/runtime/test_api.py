"""Does the in-process runtime serve, watch and refuse as the daemon does?"""

import subprocess
import sys

import numpy as np
import pytest

from runtime.api import Runtime
from runtime.contract.errors import DigestError
from runtime.errors import ModelNotFoundError, RequestError
from tests.runtime.serving.conftest import expected_scores, write_artifact

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def directory(tmp_path):
    return write_artifact(tmp_path / "tiny")


def test_the_only_model_needs_no_name_and_is_watched(directory):
    with Runtime(directory) as runtime:
        np.testing.assert_allclose(runtime.infer({"input": ROWS})["output"], expected_scores(ROWS), rtol=1e-5)
        window = runtime.take_window()
        assert (window.requests, window.rows, sum(window.classes)) == (1, 2, 2)


def test_of_several_models_one_must_be_named(directory, tmp_path):
    other = write_artifact(tmp_path / "other", model="other", scale=2)
    with Runtime(directory, str(other)) as runtime:
        with pytest.raises(RequestError, match="2 models"):
            runtime.infer({"input": ROWS})
        np.testing.assert_allclose(runtime.infer({"input": ROWS}, model="other")["output"], expected_scores(ROWS, 2), rtol=1e-5)
        with pytest.raises(ModelNotFoundError):
            runtime.infer({"input": ROWS}, model="third")


def test_another_version_takes_the_place_of_the_first(directory, tmp_path):
    newer = write_artifact(tmp_path / "newer", version="1.1.0", scale=3)
    with Runtime(directory) as runtime:
        assert runtime.open(newer).version == "1.1.0"
        np.testing.assert_allclose(runtime.infer({"input": ROWS})["output"], expected_scores(ROWS, 3), rtol=1e-5)


@pytest.mark.parametrize(
    "inputs",
    [{}, {"input": ROWS.astype(np.float64)}, {"input": ROWS[0]}, {"input": ROWS[:0]}, {"input": ROWS, "more": ROWS}],
    ids=["missing", "datatype", "rank", "empty", "surplus"],
)
def test_inputs_that_do_not_fit_are_refused_and_not_counted(directory, inputs):
    with Runtime(directory) as runtime:
        with pytest.raises(RequestError):
            runtime.infer(inputs)
        assert runtime.take_window().requests == 0


def test_a_damaged_artifact_opens_nothing(directory, tmp_path):
    broken = write_artifact(tmp_path / "broken", model="broken")
    (broken / "model.npz").unlink()
    with pytest.raises(DigestError):
        Runtime(directory, broken)


def test_closing_twice_is_no_error(directory):
    runtime = Runtime(directory)
    runtime.close()
    runtime.close()
    with pytest.raises(RequestError, match="0 models"):
        runtime.infer({"input": ROWS})


def test_importing_the_serving_side_brings_no_engine_and_nothing_of_the_update_side():
    """What it does not import, the serving process does not hold: tuf and cryptography alone are 20 MB."""
    unwanted = {"onnxruntime", "openvino", "cryptography", "tuf", "paho", "urllib3", "sqlite3", "pydantic", "hypothesis"}
    script = f"import sys, runtime.api, runtime.serving.server; print(sorted({unwanted!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
