"""Does a packed artifact hold what DESIGN promises, in a form the runtime reads?"""

import io
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from runtime.backends.base import get_backend
from runtime.contract.artifact import Manifest, read_manifest
from runtime.contract.canonical import sha256_hex
from runtime.contract.telemetry import CELLS, read_reference
from runtime.monitor.cells import count_cells
from tests.toolchain.conftest import Project
from toolchain.package.pack import decimal, engine_range, fallbacks, may_fall_back
from toolchain.pipeline.products import Variant
from toolchain.pipeline.record import BuildResult
from toolchain.recipe import TargetSection
from toolchain.targets import Profile

Trained = tuple[Project, BuildResult]


@pytest.fixture
def artifact(trained: Trained) -> Path:
    return Path(trained[1].targets[0].path)


@pytest.fixture
def manifest(artifact: Path) -> Manifest:
    return read_manifest((artifact / "manifest.json").read_bytes()).value


def test_every_file_is_listed_with_its_digest(artifact: Path, manifest: Manifest) -> None:
    listed = {entry.name: entry for entry in manifest.files}
    assert set(listed) == {"model.onnx", "golden.npz", "reference.bin", "card.md"}
    assert {path.name for path in artifact.iterdir()} == {*listed, "manifest.json", "evidence.json"}
    for name, entry in listed.items():
        raw = (artifact / name).read_bytes()
        assert (entry.sha256, entry.size_bytes) == (sha256_hex(raw), len(raw))


def test_manifest_says_what_the_recipe_asked_and_the_build_found(manifest: Manifest, trained: Trained) -> None:
    result = trained[1]
    assert (manifest.model, manifest.version, manifest.variant) == ("breast-cancer", "1.0.0", "onnxruntime-float32")
    assert manifest.requires.profile == "x86-64-cpu"
    assert manifest.engine_options == {"threads": 1}
    assert manifest.limits.max_latency_ns == 2_000_000
    assert manifest.limits.max_drop == Decimal("0.02")
    assert manifest.inputs[0].labels[0] == "mean radius"
    assert manifest.outputs[0].labels == ("malignant", "benign")
    assert [step.name for step in manifest.processing.post] == ["softmax"]
    assert manifest.metrics[0].split == "test"
    assert manifest.metrics[0].value == decimal(result.targets[0].metrics[0].value)
    assert manifest.lineage.recipe == result.recipe.sha256
    assert manifest.lineage.data == result.data.fingerprint
    assert manifest.lineage.seeds == (3,)


def test_golden_outputs_are_what_the_engine_says(artifact: Path, manifest: Manifest) -> None:
    with np.load(artifact / "golden.npz", allow_pickle=False) as golden:
        inputs, outputs, tolerance = golden["in.input"], golden["out.output"], golden["tolerance"]
    model = get_backend("onnxruntime").load(artifact / manifest.model_file, manifest.engine_options)
    again = model.infer({"input": inputs})["output"]
    model.close()
    assert inputs.shape == (16, 30)
    assert tolerance.dtype == np.float64
    rtol, atol = tolerance
    assert 0 < rtol < 0.01
    assert (np.abs(again - outputs) <= atol + rtol * np.abs(outputs)).all()


def test_reference_counts_every_validation_row(artifact: Path, trained: Trained) -> None:
    reference, edges = read_reference((artifact / "reference.bin").read_bytes())
    rows = trained[1].data.sizes["validation"]
    assert [stream.name for stream in edges.value.streams][:2] == ["mean radius", "mean texture"]
    assert len(edges.value.streams) == 30
    for counts, null in zip(reference.value.counts, reference.value.null, strict=True):
        assert sum(counts.cells) + counts.missing + counts.out_of_range == rows
        assert list(null) == sorted(null)
        assert null[-1] > 0
    assert sum(reference.value.classes) == rows
    assert sum(reference.value.confidence) == rows
    first = np.frombuffer(edges.value.streams[0].edges, "<f8")
    assert first.shape == (CELLS - 1,)
    assert (np.diff(first) > 0).all()
    assert count_cells(first[None], np.array([[np.nan]]), np.array([-np.inf]), np.array([np.inf]))[0, CELLS] == 1


def test_card_states_the_figure_and_its_interval(artifact: Path) -> None:
    card = (artifact / "card.md").read_text()
    assert "# breast-cancer 1.0.0 for x86-64-cpu" in card
    assert "95 % interval" in card
    assert "n = 170" in card


def test_personal_data_never_becomes_a_golden_input(make_project: Callable[[str], Project]) -> None:
    project = make_project("onnx_start")
    result = project.build("consent.personal_data=true")
    namespace: dict[str, object] = {"__file__": str(project.folder / "wine.py")}
    exec((project.folder / "wine.py").read_text(), namespace)
    splits = namespace["splits"]()  # type: ignore[operator]
    rows = np.concatenate([splits[name][0] for name in ("train", "validation", "test")])
    raw = (Path(result.targets[0].path) / "golden.npz").read_bytes()
    with np.load(io.BytesIO(raw), allow_pickle=False) as golden:
        inputs = golden["in.analysis"]
    assert not np.isin(inputs, rows).any()


def test_payload_is_the_same_in_every_build(
    make_project: Callable[[str], Project], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two builds of equal inputs with nothing in common but the machine: every file the manifest lists is the same."""
    first = make_project("onnx_start").build()
    second = Project(tmp_path_factory.mktemp("second"), "onnx_start").build()
    one, two = (
        {
            entry.name: entry.sha256
            for entry in read_manifest((Path(result.targets[0].path) / "manifest.json").read_bytes()).value.files
        }
        for result in (first, second)
    )
    assert one == two
    assert first.targets[0].manifest_sha256 == second.targets[0].manifest_sha256


@pytest.mark.parametrize(
    ("version", "range"), [("1.31.1", ("1.31", "2.0")), ("2026.4.1", ("2026.4", "2027.0")), ("3", ("3.0", "4.0"))]
)
def test_engine_range_begins_with_the_version_that_was_checked(version: str, range: tuple[str, str]) -> None:
    found = engine_range(version)
    assert (found.at_least, found.below) == range


@pytest.mark.parametrize(
    ("engine", "file", "profile", "target", "expected"),
    [
        ("tensorrt", "model.onnx", ("tensorrt", "onnxruntime"), (), True),
        ("tensorrt", "model.onnx", ("tensorrt", "onnxruntime"), ("tensorrt",), False),
        ("tensorrt", "model.onnx", ("tensorrt",), (), False),
        ("tensorrt", "model.plan", ("tensorrt", "onnxruntime"), (), False),
        ("onnxruntime", "model.onnx", ("tensorrt", "onnxruntime"), (), False),
        ("openvino", "model.xml", ("openvino", "onnxruntime"), (), False),
    ],
)
def test_what_tensorrt_reads_onnxruntime_may_run_where_the_target_allows_both(
    engine: str, file: str, profile: tuple[str, ...], target: tuple[str, ...], expected: bool
) -> None:
    variant = Variant(
        name=f"{engine}-int8", scheme="int8", engine=engine, precision="int8", model_file=file, files=(file,), size_bytes=1,
        inputs=(), outputs=(),
    )  # fmt: skip
    board = Profile(arch="aarch64", engines=profile, precisions=("int8",))
    section = TargetSection(profile="my-board", engines=target)  # type: ignore[arg-type]
    assert may_fall_back(variant, board, section) is expected


def test_the_fallback_is_of_the_version_that_was_here() -> None:
    assert fallbacks("", 2) == ()
    (named,) = fallbacks("1.31.0", 2)
    assert (named.engine, named.engine_range.at_least, named.engine_range.below) == ("onnxruntime", "1.31", "2.0")
    assert named.engine_options == {"threads": 2}
