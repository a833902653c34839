"""Does a recipe become variants for TensorRT where the engine is usable, and a plain reason where it is not?

The libraries are fakes of ours (tests.support.fake_tensorrt): what is checked, measured and packed here is the pipeline's half.
"""

import platform
from pathlib import Path

import pytest

from runtime.contract.artifact import MANIFEST_NAME, read_manifest
from tests.support import fake_tensorrt
from toolchain.errors import MissingError

PROFILE = """
arch = "{arch}"
engines = [{engines}]
precisions = ["float32", "float16", "int8"]
memory_bytes = 1
"""


@pytest.fixture
def project(make_project):
    def make(*engines: str):
        project = make_project("breast_cancer")
        folder = project.folder / "profiles"
        folder.mkdir()
        arch = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
        names = ", ".join(f'"{engine}"' for engine in engines)
        (folder / "my-board.toml").write_text(PROFILE.format(arch=arch, engines=names))
        return project

    return make


def build(project):
    return project.build("train.epochs=3", "target.profile=my-board")


def test_every_precision_is_made_measured_and_one_is_packed(project, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fake_tensorrt.install(monkeypatch, "10.13.3.9")
    built = project("tensorrt")
    (target,) = build(built).targets
    variants = {variant.name: variant for variant in target.variants}
    assert {"tensorrt-float32", "tensorrt-float16", "tensorrt-int8"} <= set(variants)
    for name in ("tensorrt-float32", "tensorrt-float16"):
        assert variants[name].latency is not None
    assert fake.builds >= 3
    manifest = read_manifest(next(built.out.rglob(MANIFEST_NAME)).read_bytes()).value
    assert manifest.variant.startswith("tensorrt-")
    assert manifest.requires.engine == "tensorrt"
    assert manifest.requires.engine_range.at_least.startswith("10.13")
    assert manifest.model_file == "model.onnx"
    assert not list(built.out.rglob("*.engine"))
    assert manifest.fallbacks == ()  # the profile has no other engine


@pytest.mark.slow
def test_without_the_libraries_the_other_engine_is_built_and_the_reason_said(project) -> None:
    built = project("tensorrt", "onnxruntime")
    (target,) = build(built).targets
    assert all(variant.engine == "onnxruntime" for variant in target.variants)
    assert any("tensorrt variants are left out: tensorrt is not installed" in note for note in built.notes)


def test_a_target_of_tensorrt_alone_cannot_be_built_without_it(project, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"my-board: none of its engines \(tensorrt\) is installed here"):
        build(project("tensorrt"))
