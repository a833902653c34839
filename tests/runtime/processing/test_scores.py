"""Do processing steps compute their formulas, at the ends of the number range too, and is an unknown one refused?"""

import numpy as np
import pytest

from runtime.contract.artifact import Step
from runtime.errors import ProcessingError
from runtime.processing.catalogue import check_steps
from runtime.processing.pipeline import apply_steps


def test_softmax_equals_its_formula_and_survives_large_logits():
    values = np.array([[1.0, 2.0, 3.0], [1e30, -1e30, 0.0]], np.float32)
    found = apply_steps([Step(name="softmax")], values)
    np.testing.assert_allclose(found[0], np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum(), rtol=1e-12)
    assert found[1].tolist() == [1, 0, 0]


def test_softmax_of_broken_rows_is_not_a_number():
    found = apply_steps([Step(name="softmax")], np.array([[np.nan, 1.0], [-np.inf, -np.inf], [0.0, 0.0]]))
    assert np.isnan(found[:2]).all()
    assert found[2].tolist() == [0.5, 0.5]


def test_sigmoid_equals_its_formula_and_survives_both_ends():
    found = apply_steps([Step(name="sigmoid")], np.array([0.0, 2.0, -2.0, 1e9, -1e9]))
    np.testing.assert_allclose(found, [0.5, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2)), 1, 0], rtol=1e-12)


def test_no_steps_leave_values_and_argument_alone():
    values = np.array([1.5, -2.0], np.float32)
    assert apply_steps([], values).tolist() == [1.5, -2.0]
    apply_steps([Step(name="softmax")], values)
    assert values.tolist() == [1.5, -2.0]


@pytest.mark.parametrize("step", [Step(name="sharpen"), Step(name="softmax", options={"axis": 1})])
def test_unknown_steps_and_options_are_refused(step):
    with pytest.raises(ProcessingError, match=step.name):
        check_steps([step])
    with pytest.raises(ProcessingError):
        apply_steps([step], np.zeros(2))
