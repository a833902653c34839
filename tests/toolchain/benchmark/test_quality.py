"""Is parity refused when outputs differ, and metrics by name or callable judged rightly?"""

from pathlib import Path

import numpy as np
import pytest

from toolchain.benchmark.metrics import resolve_metrics
from toolchain.benchmark.quality import FLOAT_TOLERANCE, compare
from toolchain.errors import RecipeError, StageError
from toolchain.recipe import parse_recipe

BASE = {"model": {"name": "m", "version": "1.0.0", "network": "a.py:b"}, "data": {"source": "a.py:c"}}


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(500, 5)).astype(np.float32)


@pytest.mark.parametrize(("factor", "ok"), [(0.9, True), (1.1, False)])
def test_float_tolerance_below_and_above(reference: np.ndarray, factor: float, ok: bool) -> None:
    outputs = reference * np.float32(1 + factor * FLOAT_TOLERANCE)
    result = compare([reference], [outputs], classifies=True, exact=True)
    assert result.ok is ok
    assert result.agreement == 1.0
    assert result.relative == pytest.approx(factor * FLOAT_TOLERANCE, rel=1e-2)


def test_int8_may_differ_but_must_be_finite(reference: np.ndarray) -> None:
    assert compare([reference], [reference * np.float32(1.05)], classifies=True, exact=False).ok
    broken = reference.copy()
    broken[3, 2] = np.nan
    assert not compare([reference], [broken], classifies=True, exact=False).ok


def test_another_shape_or_number_of_outputs_is_no_parity(reference: np.ndarray) -> None:
    assert not compare([reference], [reference[:, :4]], classifies=True, exact=True).ok
    assert not compare([reference], [reference, reference], classifies=True, exact=True).ok


def test_classes_that_flip_show_as_agreement(reference: np.ndarray) -> None:
    outputs = reference.copy()
    outputs[:50] = -outputs[:50]
    assert compare([reference], [outputs], classifies=True, exact=True).agreement == pytest.approx(0.9, abs=0.01)


def metric(tmp_path: Path, **section: object):
    return resolve_metrics(parse_recipe(BASE | {"metric": [section]}, "recipe.toml"), tmp_path)[0]


def test_a_callable_metric_gets_outputs_and_targets(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("def worst(outputs, targets):\n    return abs(outputs[:, 0] - targets).max()\n")
    found = metric(tmp_path, name="score.py:worst", goal="min", max_drop=0.5)
    outputs, targets = np.array([[1.0], [2.0], [5.0]]), np.array([1.0, 2.5, 3.0])
    assert found.value(outputs, targets) == 2.0
    judged = found.judge(outputs, targets, "validation")
    assert judged.name == "worst"
    assert judged.low <= judged.value <= judged.high
    assert found.drop(1.0, 1.25) == 0.25  # a larger error is worse


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "acuracy"}, "'acuracy' is no metric known here"),
        ({"name": "score.py:worst"}, '"max" or "min" is required'),
        ({"name": "gone.py:worst", "goal": "min"}, r"names gone\.py, which is not in"),
    ],
)
def test_unknown_metrics_are_the_recipe_s_fault(tmp_path: Path, section: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        metric(tmp_path, **section)


def test_a_metric_without_a_number_fails_the_stage(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("def none(outputs, targets):\n    return float('nan')\n")
    with pytest.raises(StageError, match="'none' is nan"):
        metric(tmp_path, name="score.py:none", goal="min").value(np.ones((2, 1)), np.ones(2))


def test_another_metric_code_is_another_identity(tmp_path: Path) -> None:
    path = tmp_path / "score.py"
    path.write_text("def worst(outputs, targets):\n    return 1.0\n")
    first = metric(tmp_path, name="score.py:worst", goal="min").identity
    path.write_text("def worst(outputs, targets):\n    return 2.0\n")
    assert metric(tmp_path, name="score.py:worst", goal="min").identity != first
