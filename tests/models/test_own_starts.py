"""Do starts of one's own build: a scikit-learn model through ONNX, a torch checkpoint without training, a regression?"""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.contract.artifact import read_manifest
from tests.models.conftest import MODELS, Load
from tests.toolchain.conftest import Project
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
