"""Do starts of one's own build: a scikit-learn model through ONNX, a torch checkpoint without training, a regression?"""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from runtime.contract.artifact import read_manifest
from tests.models.conftest import MODELS, Load
from tests.toolchain.conftest import Project
from toolchain.errors import NetworkError
from toolchain.pipeline.record import BuildResult
from toolchain.recipe import load_recipe
from toolchain.train.network import NetworkSource


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[[str], Project]:
    return lambda model: Project(tmp_path, model)


def ran(result: BuildResult) -> set[str]:
    return {stage.name for stage in result.stages if stage.ran}


def test_a_forest_of_scikit_learn_builds(make_project: Callable[[str], Project]) -> None:
    result = make_project("sklearn_start").build()
    (target,) = result.targets
    assert target.metrics[0].value > 0.9
    manifest = read_manifest((Path(target.path) / "manifest.json").read_bytes()).value
    assert manifest.outputs[0].labels == ("setosa", "versicolor", "virginica")


def test_the_forest_s_file_answers_as_the_forest() -> None:
    """The file in the repository, against a forest grown anew by scikit-learn."""
    import onnxruntime
    from sklearn.ensemble import RandomForestClassifier

    sys.path.insert(0, str(MODELS / "sklearn_start"))
    try:
        iris = importlib.import_module("iris")
    finally:
        sys.path.pop(0)
        sys.modules.pop("iris", None)
    parts = iris.splits()
    forest = RandomForestClassifier(n_estimators=40, max_depth=4, random_state=0).fit(*parts["train"])
    session = onnxruntime.InferenceSession(str(MODELS / "sklearn_start" / "iris.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"X": parts["test"][0]})
    assert np.allclose(found, forest.predict_proba(parts["test"][0]), atol=1e-5)


def test_a_label_before_the_scores_comes_after_them(make_project: Callable[[str], Project]) -> None:
    """scikit-learn's usual export. The label has no confidence, so a device would watch neither that nor the class mix."""
    project = make_project("sklearn_start")
    model = onnx.load(project.folder / "iris.onnx")
    label = onnx.helper.make_tensor_value_info(model.graph.node[0].output[0], onnx.TensorProto.INT64, [None])
    model.graph.output.insert(0, label)
    onnx.save(model, project.folder / "iris.onnx")
    (target,) = project.build().targets
    manifest = read_manifest((Path(target.path) / "manifest.json").read_bytes()).value
    assert [(spec.datatype, spec.labels) for spec in manifest.outputs] == [
        ("FP32", ("setosa", "versicolor", "virginica")), ("INT64", ()),
    ]  # fmt: skip
    assert target.metrics[0].value > 0.9


def test_probabilities_in_a_dictionary_say_how_to_export_them(make_project: Callable[[str], Project]) -> None:
    project = make_project("sklearn_start")
    model = onnx.load(project.folder / "iris.onnx")
    (scores,) = model.graph.output
    zipped = onnx.helper.make_node("ZipMap", [scores.name], ["zipped"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    model.graph.node.append(zipped)
    of_class = onnx.helper.make_map_type_proto(
        onnx.TensorProto.INT64, onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
    )
    scores.CopyFrom(onnx.helper.make_value_info("zipped", onnx.helper.make_sequence_type_proto(of_class)))
    onnx.save(model, project.folder / "iris.onnx")
    with pytest.raises(NetworkError, match=r"'zipped' is a sequence, not a tensor; skl2onnx .* options=\{'zipmap': False\}"):
        project.build()


def test_trees_that_cannot_be_compressed_say_so_and_leave_no_file_behind(
    make_project: Callable[[str], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the defaults of a recipe that says nothing of engines and compression."""
    project = make_project("sklearn_start")
    here = project.folder / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    result = project.build('compress.methods=["quantize"]', "compress.trials=1", "target.0.engines=[]")
    assert result.targets[0].chosen == "onnxruntime-float32"
    notes = " ".join(result.notes)
    assert "onnxruntime-int8-7bit is left out: it has no Conv, ConvTranspose, Gemm or MatMul to quantize" in notes
    assert "openvino-float32 is left out: OpenVINO cannot convert the model: No conversion rule found" in notes
    assert "ai.onnx.ml.TreeEnsembleClassifier" in notes
    assert not list(here.iterdir())


def test_a_new_checkpoint_under_the_old_name_is_another_network(make_project: Callable[[str], Project]) -> None:
    project = make_project("torch_start")
    model = load_recipe(project.recipe).model
    before = NetworkSource(model, project.folder).code
    assert NetworkSource(model, project.folder).code == before
    with (project.folder / "wine.pt").open("ab") as file:
        file.write(b"0")
    assert NetworkSource(model, project.folder).code != before


@pytest.mark.slow
def test_a_torch_checkpoint_builds_as_it_is_and_a_new_one_is_noticed(make_project: Callable[[str], Project]) -> None:
    project = make_project("torch_start")
    assert project.build().targets[0].metrics[0].value > 0.9
    assert not ran(project.build())
    project.edit("make_checkpoint.py", "manual_seed(0)", "manual_seed(1)")
    subprocess.run([sys.executable, str(project.folder / "make_checkpoint.py")], check=True, capture_output=True)
    again = ran(project.build())
    assert "train" in again
    assert "load data" not in again


def test_the_regression_s_data(load: Load) -> None:
    data = load("regression")
    assert [len(targets) for _, targets in (data.train, data.validation, data.test)] == [244, 88, 110]
    assert data.train[0].shape == (244, 10)
    assert data.train[1].shape == (244, 1)
    assert (data.splits.steering.output_kind, data.splits.steering.classes) == ("regression", ())
    assert [column.name for column in data.splits.held_out.slices] == ["sex"]


@pytest.mark.slow
def test_the_regression_builds_and_beats_the_mean(make_project: Callable[[str], Project], load: Load) -> None:
    data = load("regression")
    guess = float(np.abs(data.test[1] - data.train[1].mean()).mean())
    result = make_project("regression").build()
    (metric,) = result.targets[0].metrics
    assert (metric.name, metric.goal) == ("mae", "min")
    assert metric.value < 0.75 * guess
