"""Cache truth: whatever is changed, no result of before the change is shown. One row a mutation; each builds before and after."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.toolchain.conftest import Project, ran
from toolchain.pipeline import stage as stage_module
from toolchain.pipeline.record import BuildResult

Change = Callable[[Project], tuple[str, ...] | None]
DATA = "load data"
QUANTIZE = "make onnxruntime-int8-7bit"
OPENVINO = "make openvino-float32"
QUICK = '[compress]\nmethods = []\nschemes = ["onnxruntime-int8"]\n\n[metric]'
"""One int8 variant and no ladder: NNCF takes seconds a build, and would show nothing that the others do not."""
CHECKS = ("check onnxruntime-float32", "check openvino-float32", "check onnxruntime-int8-7bit")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The recipe that starts from ONNX, reading a data file of its own; built once, never changed."""
    project = Project(tmp_path_factory.mktemp("built"), "onnx_start")
    import sklearn

    bundled = Path(sklearn.__file__).parent / "datasets" / "data" / "wine_data.csv"
    shutil.copyfile(bundled, project.folder / "wine.csv")
    project.edit("wine.py", "path or bundled_file()", "path or Path(__file__).parent / 'wine.csv'")
    project.edit("recipe.toml", "[metric]", QUICK)
    project.build()
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """A copy of it with its cache, where it was built before: the data file is found at another place, with other times."""
    copy = Project(tmp_path, "onnx_start")
    shutil.rmtree(copy.folder)
    shutil.copytree(built.folder, copy.folder)
    shutil.copytree(built.cache_root, copy.cache_root)
    copy.build()
    return copy


def line(number: int, column: int, value: str) -> Change:
    """Change one cell of the data file. Lines count from 1 below the heading: 1 train, 2 validation, 3 train, 4 test, ..."""

    def change(project: Project) -> None:
        path = project.folder / "wine.csv"
        lines = path.read_text().splitlines()
        cells = lines[number].split(",")
        assert cells[column] != value
        cells[column] = value
        lines[number] = ",".join(cells)
        path.write_text("\n".join(lines) + "\n")

    return change


def text(name: str, old: str, new: str) -> Change:
    return lambda project: project.edit(name, old, new)


def option(*changes: str) -> Change:
    return lambda project: changes


def last_row_gone(project: Project) -> None:
    path = project.folder / "wine.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def weights(project: Project) -> None:
    path = project.folder / "wine.onnx"
    model = onnx.load(path)
    tensor = next(item for item in model.graph.initializer if item.name == "bias")
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + np.float32(0.25), "bias"))
    onnx.save(model, path)


def drop(stage: str) -> Change:
    def change(project: Project) -> None:
        before = project.build()
        key = next(item.key for item in before.stages if item.name == stage)
        shutil.rmtree(project.cache_root / "stages" / key)

    return change


def damage(stage: str, name: str) -> Change:
    def change(project: Project) -> None:
        before = project.build()
        key = next(item.key for item in before.stages if item.name == stage)
        path = project.cache_root / "stages" / key / "files" / name
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)

    return change


def profile(project: Project) -> None:
    folder = project.folder / "profiles"
    folder.mkdir()
    shipped = Path(stage_module.__file__).parents[1] / "profiles" / "x86-64-cpu.toml"
    (folder / "x86-64-cpu.toml").write_text(shipped.read_text().replace("threads = 1", "threads = 2"))


MUTATIONS: list[tuple[str, Change, set[str]]] = [
    ("a training label", line(1, 13, "2"), {DATA, QUANTIZE, "pack"}),
    ("a training value", line(1, 0, "99.5"), {DATA, QUANTIZE, "pack"}),
    ("a validation label", line(2, 13, "2"), {DATA, "take onnx", *CHECKS, "choose", "pack"}),
    ("a validation value", line(2, 0, "99.5"), {DATA, "take onnx", *CHECKS, "choose", "pack"}),
    ("a test label", line(4, 13, "2"), {DATA, "test", "pack"}),
    ("a test value", line(4, 0, "99.5"), {DATA, "test", "pack"}),
    ("a row less", last_row_gone, {DATA, "pack"}),
    ("a class renamed in the heading", text("wine.csv", "class_1", "klass_1"), {DATA, "take onnx", "pack"}),
    ("a feature renamed in the source", text("wine.py", '"alcohol"', '"spirit"'), {DATA, "take onnx", "pack"}),
    ("a comment in the source", text("wine.py", "FEATURES = (", "# why\nFEATURES = ("), {DATA}),
    (
        "another split in the source",
        text("wine.py", "slice(1, None, 4)", "slice(1, None, 8)"),
        {DATA, "take onnx", *CHECKS, "pack"},
    ),
    (
        "a scale in the source",
        text("wine.py", "values, labels = table", "table[:, 0] *= 2\n    values, labels = table"),
        {DATA, "take onnx"},
    ),
    ("weights of the given model", weights, {"take onnx", OPENVINO, QUANTIZE, *CHECKS, "measure", "choose", "pack"}),
    ("the latency limit", option("target.max_latency_ms=2"), {"choose", "pack"}),
    ("no latency limit", text("recipe.toml", "max_latency_ms = 1.0", ""), {"choose", "pack"}),
    ("the metric's limit", option("metric.max_drop=0.5"), {"choose", "pack"}),
    ("another metric", option("metric.name=f1_macro"), {*CHECKS, "choose", "test", "pack"}),
    ("the metric's goal", option("metric.goal=min"), {*CHECKS, "test", "pack"}),
    ("calibration rows", option("compress.calibration_rows=20"), {QUANTIZE, "check onnxruntime-int8-7bit", "pack"}),
    ("no quantization", option("compress.schemes=[]"), {"measure", "choose", "pack"}),
    ("one engine less", option('target.engines=["onnxruntime"]'), {"measure", "choose", "pack"}),
    ("another version", option("model.version=2.0.0"), {"pack"}),
    ("another licence", option("model.licence=MIT"), {"pack"}),
    ("a higher floor", option("model.rollback_floor=1.0.0"), {"pack"}),
    ("personal data", option("consent.personal_data=true"), {"pack"}),
    ("logits instead of probabilities", option("model.scores=logits"), {"pack"}),
    (
        "another profile",
        option("target.profile=intel-cpu-vnni"),
        {"make onnxruntime-int8", "pack intel-cpu-vnni"},
    ),
    ("the profile's threads", profile, {"measure", "pack"}),
    ("a dropped entry", drop(OPENVINO), {OPENVINO}),
    ("a damaged model in the cache", damage("take onnx", "model.onnx"), {"take onnx"}),
    ("damaged data in the cache", damage(DATA, "train.targets.npy"), {DATA}),
    ("a damaged package in the cache", damage("pack x86-64-cpu", "golden.npz"), {"pack"}),
    ("a comment in the recipe", text("recipe.toml", "[model]", "# why\n[model]"), set()),
]


def names(result: BuildResult) -> set[str]:
    return {name.removesuffix(" intel-cpu-vnni") if not name.startswith("pack") else name for name in ran(result)}


@pytest.mark.parametrize(("change", "expected"), [row[1:] for row in MUTATIONS], ids=[row[0] for row in MUTATIONS])
def test_no_stale_hit(project: Project, change: Change, expected: set[str]) -> None:
    """The stages that must run did; what came out equals a build of the same inputs that never had a cache."""
    changes = change(project) or ()
    again = project.build(*changes)
    assert expected <= names(again)
    if not expected:
        assert names(again) == set()
    settled = project.build(*changes)
    assert names(settled) == set()
    fresh = Project.__new__(Project)
    fresh.__dict__.update(project.__dict__, cache_root=project.cache_root.with_name("empty"), out=project.out.with_name("fresh"))
    without_cache = fresh.build(*changes)
    outputs = {stage.name: stage.output for stage in again.stages}
    for stage in without_cache.stages:
        if not stage.name.startswith(("measure", "profile", "choose", "pack")):  # these hold what was measured
            assert outputs[stage.name] == stage.output, stage.name
    assert again.targets[0].metrics == without_cache.targets[0].metrics


def test_another_tool_version_runs_its_stages(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    real = stage_module.tool_version
    monkeypatch.setattr(stage_module, "tool_version", lambda tool: "99.0" if tool == "openvino" else real(tool))
    assert {OPENVINO, "check openvino-float32", "measure"} <= ran(project.build())


def test_there_are_enough_mutations() -> None:
    assert len(MUTATIONS) >= 25
