"""Does the self-test let right outputs pass and nothing else?"""

import msgspec
import numpy as np
import pytest

from runtime.contract.artifact import Limits, read_manifest
from runtime.errors import EngineError, SelfTestError
from runtime.update.selftest import compare, golden_batches, read_golden, run_self_test
from tests.support.artifacts import CLASSES, FEATURES, OUTPUTS, write_artifact

WANT = np.array([[1.0, 2.0, 3.0]], np.float32)


@pytest.fixture
def artifact(tmp_path):
    write_artifact(tmp_path / "artifact")
    return tmp_path / "artifact"


def manifest_of(directory):
    return read_manifest((directory / "manifest.json").read_bytes()).value


def test_the_right_model_passes_and_is_measured(artifact):
    figures = run_self_test(artifact, 25)
    assert (figures["rows"], figures["samples"]) == (16, 25)
    assert 0 < figures["p50_ns"] <= figures["p90_ns"] <= figures["p99_ns"]


def test_wrong_outputs_are_refused(tmp_path):
    write_artifact(tmp_path / "wrong", golden_scale=1.001)
    with pytest.raises(SelfTestError, match="off by up to"):
        run_self_test(tmp_path / "wrong", 1)


@pytest.mark.parametrize(("limit", "passes"), [(1, False), (10**12, True)])
def test_the_latency_limit_is_held(tmp_path, limit, passes):
    write_artifact(tmp_path / "limited", limits=Limits(max_latency_ns=limit))
    if passes:
        run_self_test(tmp_path / "limited", 5)
    else:
        with pytest.raises(SelfTestError, match="over the limit"):
            run_self_test(tmp_path / "limited", 5)


@pytest.mark.parametrize(
    ("name", "off", "passes"), [("below", 0.099, True), ("above", 0.11, False), ("nan", np.nan, False), ("inf", np.inf, False)]
)
def test_the_tolerance(artifact, name, off, passes):
    # A gap exactly at the tolerance is not testable: binary fractions round it to either side.
    found = {"output": WANT + np.float32(off)}
    tolerance = (0.0, 0.1)
    if passes:
        compare(found, {"output": WANT}, tolerance, manifest_of(artifact))
    else:
        with pytest.raises(SelfTestError):
            compare(found, {"output": WANT}, tolerance, manifest_of(artifact))


def test_the_tolerance_grows_with_the_expected_value(artifact):
    compare({"output": WANT * np.float32(1.09)}, {"output": WANT}, (0.1, 0.0), manifest_of(artifact))
    with pytest.raises(SelfTestError):
        compare({"output": WANT * np.float32(1.11)}, {"output": WANT}, (0.1, 0.0), manifest_of(artifact))


def test_a_clear_class_must_stay_and_an_unclear_one_may_change(artifact):
    unclear = np.array([[1.0, 1.05, 0.0]], np.float32)
    swapped = np.array([[1.05, 1.0, 0.0]], np.float32)
    compare({"output": swapped}, {"output": unclear}, (0.0, 0.1), manifest_of(artifact))
    clear = np.array([[1.0, 1.15, 0.0]], np.float32)
    with pytest.raises(SelfTestError, match="another class"):
        compare({"output": np.array([[1.09, 1.06, 0.0]], np.float32)}, {"output": clear}, (0.0, 0.1), manifest_of(artifact))


@pytest.mark.parametrize("found", [{}, {"output": WANT[:, :2]}, {"other": WANT}])
def test_a_missing_or_misshapen_output_is_refused(artifact, found):
    with pytest.raises(SelfTestError, match="shape"):
        compare(found, {"output": WANT}, (0.1, 0.1), manifest_of(artifact))


def arrays(**changes):
    rows = np.zeros((2, FEATURES), np.float32)
    base = {"in.input": rows, "out.output": np.zeros((2, CLASSES), np.float32), "tolerance": np.array([0.0, 0.1])}
    return {name: array for name, array in (base | changes).items() if array is not None}


@pytest.mark.parametrize(
    "content",
    [
        {"tolerance": None},
        {"tolerance": np.array([1.0])},
        {"out.output": None},
        {"in.surplus": np.zeros(2)},
        {"in.input": np.zeros((3, FEATURES), np.float32)},
        {"in.input": np.zeros((0, FEATURES), np.float32), "out.output": np.zeros((0, CLASSES), np.float32)},
    ],
)
def test_a_golden_file_that_does_not_fit_is_refused(artifact, content):
    np.savez(artifact / "golden.npz", **arrays(**content))
    with pytest.raises(SelfTestError, match="golden"):
        read_golden(artifact / "golden.npz", manifest_of(artifact))


def test_a_golden_file_that_is_none_is_refused(artifact):
    (artifact / "golden.npz").write_bytes(b"not a zip")
    with pytest.raises(SelfTestError):
        run_self_test(artifact, 1)


def test_a_model_with_a_fixed_batch_gets_its_rows_in_pieces(artifact):
    fixed = msgspec.structs.replace(
        manifest_of(artifact),
        inputs=(msgspec.structs.replace(manifest_of(artifact).inputs[0], shape=(1, FEATURES)),),
        outputs=OUTPUTS,
    )
    pieces = list(golden_batches(arrays(), fixed))
    assert [len(inputs["input"]) for inputs, _ in pieces] == [1, 1]


def test_a_file_that_is_no_model_is_an_engine_error(artifact):
    (artifact / "model.npz").write_bytes(b"no model")
    with pytest.raises(EngineError):
        run_self_test(artifact, 1)
