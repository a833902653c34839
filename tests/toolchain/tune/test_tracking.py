"""Is a search found in MLflow as a run of the build, with each trial a run of the search? In a real SQLite store."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.toolchain.report.sample import result
from toolchain import tracking
from toolchain.pipeline.record import TrialResult, TuningResult

PARENT = "mlflow.parentRunId"

TRIALS = (
    TrialResult(
        number=0, settings={"train.epochs": 5, "model.options.width": 16}, state="complete", values=(0.97, 61234.5), violated=(),
        seconds=2.5,
    ),
    TrialResult(
        number=1, settings={"train.epochs": 9, "model.options.width": 8}, state="complete", values=(0.91, 40000.0),
        violated=("max_drop",), seconds=3.0, same_as=0,
    ),
    TrialResult(
        number=2, settings={"train.epochs": 9, "model.options.width": 0}, state="failed", values=(), violated=(), seconds=0.1,
        error="no width",
    ),
)  # fmt: skip


def test_every_trial_is_a_child_run_of_the_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("EDGEWRIGHT_TRACKING", store)
    tuning = TuningResult(sampler="tpe", objectives=("metric", "latency"), trials=TRIALS, best=0, reason="")
    ids = tracking.track(msgspec.structs.replace(result(), tuning=tuning))
    with tracking._client(store) as client:
        runs = client.search_runs([ids["experiment"]])
    children: dict[str, list[Any]] = {}
    for run in runs:
        children.setdefault(run.data.tags.get(PARENT, ""), []).append(run)
    assert [run.info.run_id for run in children[""]] == [ids["run"]]
    (search,) = children[ids["run"]]
    assert search.data.tags["edgewright.best"] == "0"
    first, second, third = sorted(children[search.info.run_id], key=lambda run: run.info.run_name)
    assert first.info.run_name == "trial 0"
    assert first.data.params == {"train.epochs": "5", "model.options.width": "16"}
    assert first.data.metrics == {"accuracy": 0.97, "latency_ns": 61234.5, "seconds": 2.5}
    assert second.data.tags["edgewright.violated"] == "max_drop"
    assert second.data.tags["edgewright.same_as"] == "0"
    assert (third.info.status, third.data.tags["edgewright.error"]) == ("FAILED", "no width")
    assert {run.info.status for run in (first, second, search)} == {"FINISHED"}
