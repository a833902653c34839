"""Does a profile of real engines name their operators, their memory and who is to blame?"""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from tests.toolchain.benchmark.conftest import Variants, network
from toolchain.benchmark import operators
from toolchain.benchmark.profile import peak_bytes, profile
from toolchain.errors import StageError
from toolchain.pipeline.products import ProfiledModels
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.record import LatencyResult
from toolchain.pipeline.stage import Stored


@pytest.fixture(scope="module")
def profiled(variants: Variants, rows: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> ProfiledModels:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operators, "SPAN_NS", 1_000_000)
        patch.setattr("toolchain.benchmark.profile.peak_bytes", peak_bytes)  # which other tests do without
        latencies = {"onnxruntime-float32": latency(1.0), "onnxruntime-int8": latency(0.7)}
        return profile(list(variants.values()), rows, 1, Silent(), latencies=latencies, sys_root=tmp_path_factory.mktemp("sys"))


def latency(ratio: float) -> LatencyResult:
    return LatencyResult(
        p50_ns=1, p90_ns=1, p99_ns=1, mean_ns=1, samples=1, threads=1, batch=1,
        ratio=ratio, ratio_low=ratio - 0.01, ratio_high=ratio + 0.01,
    )  # fmt: skip


def test_each_engine_names_its_operators_the_slowest_first(profiled: ProfiledModels) -> None:
    kinds = {name: [layer.operator for layer in found.layers] for name, found in profiled.profiles.items()}
    assert kinds["onnxruntime-float32"].count("Conv") == 2
    assert kinds["onnxruntime-int8"].count("QLinearConv") == 2
    assert "QuantizeLinear" in kinds["onnxruntime-int8"]
    assert "Convolution" in kinds["openvino-float32"]
    for found in profiled.profiles.values():
        times = [layer.ns for layer in found.layers]
        assert times == sorted(times, reverse=True)
        assert sum(layer.share for layer in found.layers) == pytest.approx(1)


def test_only_the_int8_variant_that_does_not_pay_is_blamed(profiled: ProfiledModels) -> None:
    blames = {name: found.blame for name, found in profiled.profiles.items()}
    assert "of its time" in blames["onnxruntime-int8"] or "no operator stands out" in blames["onnxruntime-int8"]
    assert (blames["onnxruntime-float32"], blames["openvino-float32"]) == ("", "")


def test_int8_that_is_surely_faster_is_not_blamed(
    variants: Variants, rows: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "SPAN_NS", 1_000_000)
    pair = [variants["onnxruntime-float32"], variants["onnxruntime-int8"]]
    latencies = {"onnxruntime-float32": latency(1.0), "onnxruntime-int8": latency(1.5)}
    assert profile(pair, rows, 1, Silent(), latencies=latencies).profiles["onnxruntime-int8"].blame == ""


def test_memory_is_the_engine_s_own_and_energy_absent_without_a_counter(profiled: ProfiledModels) -> None:
    for found in profiled.profiles.values():
        assert found.energy_uj is None
        assert found.peak_bytes is not None
        assert 1_000_000 < found.peak_bytes < 500_000_000


def test_a_larger_model_takes_more_memory(variants: Variants, rows: list[np.ndarray], tmp_path: Path) -> None:
    model = network()
    spare = np.zeros(10_000_000, dtype=np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(spare, "spare"))
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["spare"], ["unused"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("unused", onnx.TensorProto.FLOAT, [1]))
    onnx.save(model, tmp_path / "model.onnx")
    small = variants["onnxruntime-float32"]
    large = Stored(small.value, tmp_path, "")
    feed = {"input": rows[0][:1]}
    found = [peak_bytes(each, feed, 1) for each in (small, large)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[1] - found[0] > 30_000_000


def test_a_model_that_does_not_open_fails_the_stage_in_one_line(
    variants: Variants, rows: list[np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    broken = Stored(msgspec.structs.replace(variants["onnxruntime-float32"].value), tmp_path, "")
    with pytest.raises(StageError, match="cannot profile onnxruntime-float32") as raised:
        profile([broken], rows, 1, Silent())
    assert "\n" not in str(raised.value)
