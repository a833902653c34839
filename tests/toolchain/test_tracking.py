"""Is every build found again in MLflow, with its numbers, its lineage and its registered release?"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.toolchain.report.sample import result
from toolchain import tracking
from toolchain.errors import TrackingError, UsageError
from toolchain.pipeline.record import BuildResult


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for the module: making MLflow's tables is most of a test's time."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/home/mlflow.db"


@pytest.fixture(autouse=True)
def environment(store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEWRIGHT_TRACKING", store)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def client(store: str) -> Iterator[Any]:
    with tracking._client(store) as made:
        yield made


def release(model: str, version: str = "1.0.0", **changes: Any) -> BuildResult:
    built = result(**changes)
    section = msgspec.structs.replace(built.recipe.model, name=model, version=version)
    return msgspec.structs.replace(built, recipe=msgspec.structs.replace(built.recipe, model=section))


def test_a_build_is_found_with_its_numbers_and_lineage(client: Any, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<html>")
    ids = tracking.track(release("digits", out=str(tmp_path)))
    run = client.get_run(ids["run"])
    assert run.info.status == "FINISHED"
    assert run.data.params["train.epochs"] == "15"
    assert run.data.params["model.options.width"] == "16"
    assert run.data.params["target.0.profile"] == "x86-64-cpu"
    assert run.data.params["version.torch"] == "2.15.0"
    assert run.data.metrics["x86-64-cpu/test_accuracy"] == pytest.approx(0.9889)
    assert run.data.metrics["x86-64-cpu/onnxruntime-int8/p50_us"] == pytest.approx(565.0)
    assert run.data.tags["edgewright.data"] == "12" * 32
    assert run.inputs.dataset_inputs[0].dataset.digest == "12" * 16
    assert [each.step for each in client.get_metric_history(ids["run"], "train_loss")] == list(range(15))
    assert {file.path for file in client.list_artifacts(ids["run"])} == {"report.html", "environment.json"}


def test_the_release_is_registered_without_a_pickle(client: Any, store: str) -> None:
    ids = tracking.track(release("pumps"))
    version = client.get_model_version("pumps", ids["model_version"])
    assert version.tags["edgewright.version"] == "1.0.0"
    assert version.tags["edgewright.manifest.x86-64-cpu"] == "ab" * 32
    folder = Path(store.removeprefix("sqlite:///")).parent
    assert not [file for file in folder.rglob("*") if file.suffix in (".pkl", ".pickle", ".pt")]


def test_an_equal_build_is_a_new_run_of_the_same_version() -> None:
    first, second = tracking.track(release("same")), tracking.track(release("same"))
    assert first["run"] != second["run"]
    assert first["model_version"] == second["model_version"]


def test_another_build_of_a_release_is_another_version() -> None:
    first, second = tracking.track(release("other")), tracking.track(release("other", build="99" * 32))
    assert first["model_version"] != second["model_version"]


def test_an_alias_moves_to_the_newest_build_of_a_release(client: Any) -> None:
    tracking.track(release("fans", "1.0.0"))
    tracking.track(release("fans", "1.1.0"))
    newest = tracking.track(release("fans", "1.1.0", build="77" * 32))
    assert tracking.promote("fans", "1.0.0", "champion").before == ""
    moved = tracking.promote("fans", "1.1.0", "champion")
    assert (moved.before, moved.registry_version) == ("1.0.0", newest["model_version"])
    assert str(client.get_model_version_by_alias("fans", "champion").version) == newest["model_version"]


def test_a_release_nobody_built_cannot_be_promoted() -> None:
    tracking.track(release("vans", "1.0.0"))
    with pytest.raises(UsageError, match=r"known: 1\.0\.0"):
        tracking.promote("vans", "9.9.9", "champion")
    with pytest.raises(UsageError, match="no build of 'nobody'"):
        tracking.promote("nobody", "1.0.0", "champion")


def test_names_mlflow_refuses_are_spelt_so_that_it_takes_them(client: Any) -> None:
    stage = msgspec.structs.replace(result().stages[1], name="quantize, 7-bit (weights)")
    ids = tracking.track(release("names", stages=(stage,)))
    assert client.get_run(ids["run"]).data.metrics["stage_seconds/quantize_ 7-bit _weights_"] == stage.seconds


def test_tracking_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_TRACKING", "off")
    assert tracking.track(result()) == {}
    with pytest.raises(UsageError, match="tracking is off"):
        tracking.promote("digits", "1.0.0", "champion")


def test_a_store_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("EDGEWRIGHT_TRACKING", f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(TrackingError, match="EDGEWRIGHT_TRACKING=off"):
        tracking.track(result())


def test_an_unknown_kind_of_store_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_TRACKING", "file:///tmp/mlruns")
    with pytest.raises(UsageError, match="expected sqlite"):
        tracking.track(result())


def test_without_mlflow_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(TrackingError, match="off"):
        tracking.track(result())


def test_a_password_in_the_address_is_not_shown() -> None:
    assert tracking._shown("http://ada:secret@mlflow:5000") == "http://ada:…@mlflow:5000"
