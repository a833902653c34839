"""Every collapse of the fixed suite is caught before packing, and recovered within the ladder; three of them every day, all when slow."""

from pathlib import Path

import pytest

from benchmarks.collapses import Outcome, run
from tests.toolchain.compress.collapses import COLLAPSES, named

SHARE = 0.9
"""Of the rows that must be recovered within the recipe's limit on test data."""
TRIALS = 10


@pytest.mark.parametrize(
    ("name", "rung"),
    [
        ("one-class", "onnxruntime-int8-balanced"),
        ("raw-tumours", "onnxruntime-int8-smooth"),
        ("faint-picture", "onnxruntime-int8-restored"),
    ],
)
def test_a_collapse_is_caught_and_recovered_by_its_rung(name: str, rung: str, tmp_path: Path) -> None:
    outcome = run(named(name), tmp_path)
    assert outcome.plain_drop > outcome.max_drop
    assert outcome.is_caught
    assert outcome.is_recovered
    assert outcome.rung == rung


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    root = tmp_path_factory.mktemp("collapses")
    return [run(row, root) for row in COLLAPSES]


@pytest.mark.slow
def test_every_collapse_is_caught(outcomes: list[Outcome]) -> None:
    assert [outcome.name for outcome in outcomes if not outcome.is_caught] == []


@pytest.mark.slow
def test_nearly_every_collapse_is_recovered(outcomes: list[Outcome]) -> None:
    lost = [outcome.name for outcome in outcomes if not (outcome.is_recovered and outcome.trials <= TRIALS)]
    assert len(lost) <= (1 - SHARE) * len(outcomes), lost


def test_the_list_is_long_enough_and_names_its_reasons() -> None:
    assert len({row.name for row in COLLAPSES}) == len(COLLAPSES) >= 14
    assert {row.engine for row in COLLAPSES} == {"onnxruntime", "openvino"}
