"""Does agreement say what its definition says: the same class, or within 5 % of the answer's size?"""

import msgspec
import numpy as np
import pytest

from runtime.contract.artifact import TensorSpec, read_manifest
from runtime.serving.models.agreement import agreeing_rows
from tests.runtime.serving.conftest import write_artifact


@pytest.fixture
def classifier(artifact):
    return read_manifest((artifact / "manifest.json").read_bytes()).value


@pytest.fixture
def regressor(tmp_path):
    directory = write_artifact(tmp_path / "regressor", output_kind="regression")
    return read_manifest((directory / "manifest.json").read_bytes()).value


def rows(*values, kind=np.float32):
    return {"output": np.array(values, kind)}


def test_classes_agree_whatever_the_scores_are(classifier):
    ours = rows([5, 1, 0], [0, 1, 0], [0, 0, 1])
    theirs = rows([9, 8, 0], [1, 0, 0], [-1, -1, 0])
    assert agreeing_rows(classifier, ours, classifier, theirs, 3) == 2


def test_a_score_that_is_not_a_number_agrees_with_nothing(classifier):
    broken = rows([np.nan, 1, 0])
    assert agreeing_rows(classifier, broken, classifier, broken, 1) == 0


@pytest.mark.parametrize(("factor", "agrees"), [(1.049, 1), (1.051, 0), (0.951, 1), (0.949, 0)])
def test_other_outputs_agree_within_five_percent_of_the_active_answer(regressor, factor, agrees):
    ours = rows([3, 4, 12], kind=np.float64)
    assert agreeing_rows(regressor, ours, regressor, {"output": ours["output"] * factor}, 1) == agrees


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        ([0, 0, 0], [0, 0, 0], 1),
        ([0, 0, 0], [0, 0, 1e-9], 0),
        ([np.nan, 1, 1], [np.nan, 1, 1], 0),
        ([np.inf, 1, 1], [np.inf, 1, 1], 0),
        ([1e30, 0, 0], [1.01e30, 0, 0], 1),
    ],
    ids=["zero", "not zero", "not a number", "infinite", "huge"],
)
def test_edges_of_the_tolerance(regressor, ours, theirs, agreed):
    assert agreeing_rows(regressor, rows(ours, kind=np.float64), regressor, rows(theirs, kind=np.float64), 1) == agreed


def test_examples_are_counted_one_by_one(regressor):
    ours = np.ones((4, 3))
    theirs = ours.copy()
    theirs[1] = 2
    assert agreeing_rows(regressor, {"output": ours}, regressor, {"output": theirs}, 4) == 3


def test_every_output_must_agree_and_text_exactly(regressor):
    specs = (*regressor.outputs, TensorSpec(name="text", datatype="BYTES", shape=(-1, 1)))
    both = msgspec.structs.replace(regressor, outputs=specs)
    ours = {"output": np.ones((2, 3)), "text": np.array([[b"a"], [b"b"]], object)}
    theirs = {"output": np.ones((2, 3)), "text": np.array([[b"a"], [b"c"]], object)}
    assert agreeing_rows(both, ours, both, ours, 2) == 2
    assert agreeing_rows(both, ours, both, theirs, 2) == 1


@pytest.mark.parametrize("theirs", [{}, {"output": np.ones((1, 4))}, {"other": np.ones((1, 3))}], ids=["none", "wider", "name"])
def test_an_answer_of_another_form_agrees_nowhere(regressor, classifier, theirs):
    assert agreeing_rows(regressor, {"output": np.ones((1, 3))}, regressor, theirs, 1) == 0
    assert agreeing_rows(classifier, rows([1, 0, 0]), regressor, rows([1, 0, 0]), 1) == 0
