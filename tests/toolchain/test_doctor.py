"""Does the doctor name the piece that is missing and what to do, and every scheme there is?"""

import os
from pathlib import Path

import pytest

from tests.support import fake_tensorrt
from tests.support.fake_cuda import FakeDriver
from toolchain import doctor
from toolchain.compress.schemes import LADDERS, SCHEMES
from toolchain.pipeline import stage


def by_name(folder: Path) -> dict[tuple[str, str], doctor.Finding]:
    return {(finding.area, finding.name): finding for finding in doctor.examine(folder)}


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch):
    """A function that makes a distribution look as if it were not installed."""

    def hide(*names: str) -> None:
        real = stage.tool_version
        monkeypatch.setattr(doctor, "tool_version", lambda name: stage.ABSENT if name in names else real(name))

    return hide


def test_every_scheme_is_listed_with_when_it_is_tried_and_by_what(tmp_path: Path) -> None:
    found = by_name(tmp_path)
    for item in SCHEMES:
        line = found["scheme", f"{item.engine}-{item.name}"]
        if line.ok:
            assert all(f"{tool} {stage.tool_version(tool)}" in line.detail for tool in item.tools)
        else:
            assert item.engine == "tensorrt"
    assert 'method "quantize"' in found["scheme", "onnxruntime-int8"].detail
    for engine, (first, *rest) in LADDERS.items():
        for name, before in zip(rest, (first, *rest), strict=False):
            line = found["scheme", f"{engine}-{name}"]
            assert not line.ok or f"tried where {engine}-{before} misses" in line.detail


def test_a_scheme_without_its_package_says_which_and_how_to_get_it(tmp_path: Path, absent) -> None:
    absent("openvino")
    line = by_name(tmp_path)["scheme", "openvino-bf16"]
    assert not line.ok
    assert line.detail == 'openvino not installed: pip install "edgewright[toolchain]"'


def test_packages_of_the_long_tail_are_looked_for(tmp_path: Path) -> None:
    found = by_name(tmp_path)
    for area, name in [
        ("compress", "torchao"), ("compress", "torch-pruning"), ("compress", "neural-compressor"), ("compress", "nncf"),
        ("tune", "optuna"), ("measure", "mlcommons-loadgen"),
    ]:  # fmt: skip
        assert found[area, name].ok


def test_a_complete_tensorrt_is_reported_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On fakes of NVIDIA's libraries."""
    fake_tensorrt.install(monkeypatch, "10.13.3.9")
    found = by_name(tmp_path)
    assert (found["run", "tensorrt"].ok, found["run", "tensorrt"].detail) == (True, "10.13.3.9")
    assert all(found["TensorRT", name].ok for name in ("library", "driver", "GPU"))
    assert "compute capability 8.7" in found["TensorRT", "GPU"].detail


def test_of_a_broken_tensorrt_only_the_missing_piece_is_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On fakes of NVIDIA's libraries."""
    fake_tensorrt.install(monkeypatch, "11.4.1", FakeDriver(gpus=0))
    found = by_name(tmp_path)
    assert not found["run", "tensorrt"].ok
    assert [found["TensorRT", name].ok for name in ("library", "driver", "GPU")] == [True, True, False]
    assert "nvidia-smi" in found["TensorRT", "GPU"].detail
    assert doctor.is_fit(list(found.values()))


@pytest.mark.parametrize(
    ("meter", "readable", "words"), [(object(), True, "readable"), (None, True, "none ("), (None, False, "chmod")]
)
def test_the_energy_counter_is_there_hidden_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meter: object, readable: bool, words: str
) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("1")
    monkeypatch.setattr(doctor, "find_meter", lambda: meter)
    monkeypatch.setattr(doctor, "_POWERCAP", tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: readable)
    line = by_name(tmp_path)["measure", "energy counter"]
    assert line.ok is (meter is not None)
    assert words in line.detail


def test_a_profile_of_an_accelerator_this_host_lacks_is_not_measured_here(tmp_path: Path) -> None:
    line = by_name(tmp_path)["measure for", "intel-npu"]
    assert not line.ok
    assert "intel-npu" in line.detail or "aarch64" in line.detail


def test_a_profile_beside_the_recipe_is_listed(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "my-box.toml").write_text('arch = "x86_64"\nengines = ["onnxruntime"]\nprecisions = ["float32"]\n')
    assert ("measure for", "my-box") in by_name(tmp_path)
