"""Is a model that somebody brings along built, deployed and watched by what it is: a forest, a checkpoint, a number, a score?

What the fleet watches: the metric that the release was judged by, and the drift of its inputs and, where it has no classes, of its
outputs; of a classifier its class mix, which a rollout's gate compares. No device sends back what would have been right, so
nobody here claims to know how accurate a model is in the field.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from benchmarks.demo.local_fleet import CHECKOUT, LocalFleet, roll_out_at_once, serving_version, wait_for
from benchmarks.demo.traffic import DigitsClient
from tests.e2e.steps import wait_for_state
from tests.models.sounds import toy_car
from toolchain.benchmark.scores import SCORES
from toolchain.data.code import find_callable, loaded

pytestmark = pytest.mark.e2e

DEVICE = "alpha"
BLOCK = 200
"""Rows of one judgement of drift: what the reference's null was drawn for."""
QUICK = ("compress.methods=[]", 'target.0.engines=["onnxruntime"]')
"""One variant: what became of the others is the toolchain's own tests' business."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """folder: below models/. shift: what goes wrong at the device; moved: the stream that must be named for it first.

    outputs: streams of the model's answers that are watched; a classifier has classes instead.
    """

    folder: str
    model: str
    source: str
    metric: str
    goal: str
    kind: str
    shift: Callable[[np.ndarray], np.ndarray]
    moved: str
    inputs: int
    outputs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


def add_to(column: int, amount: float) -> Callable[[np.ndarray], np.ndarray]:
    """A sensor that reads too high in one column of a table."""

    def shift(rows: np.ndarray) -> np.ndarray:
        shifted = rows.copy()
        shifted[:, column] += amount
        return shifted

    return shift


FOREST = Start(
    folder="sklearn_start", model="iris", source="iris.py:splits", metric="accuracy", goal="max", kind="classification",
    shift=add_to(1, 2.0), moved="sepal width", inputs=4,
)  # fmt: skip
STARTS = (
    FOREST,
    Start(
        folder="torch_start", model="wine-torch", source="wine.py:splits", metric="accuracy", goal="max", kind="classification",
        shift=add_to(4, 60.0), moved="magnesium", inputs=13,
    ),
    Start(
        folder="regression", model="diabetes", source="diabetes.py:splits", metric="mae", goal="min", kind="regression",
        shift=add_to(2, 12.0), moved="body mass index", inputs=10, outputs=("output.[0]",),
    ),
    Start(
        folder="anomaly_detection", model="anomaly-detection", source="anomaly_detection.py:splits", metric="roc_auc", goal="max",
        kind="anomaly", shift=lambda clips: clips + 15, moved="brightness", inputs=4, outputs=("output.[0]",),
        settings=("train.epochs=30", "train.batch_size=4", "train.learning_rate=0.02"),
    ),
)  # fmt: skip
each_start = pytest.mark.parametrize("start", STARTS, ids=lambda start: start.folder)


class Bench:
    """Builds starts in folders of their own and brings them to one device. Every model stays there; each is on the device once."""

    def __init__(self, fleet: LocalFleet, home: Path) -> None:
        self.fleet, self._home = fleet, home
        toy_car(home / "ToyCar", train=6, test=10)

    def build(self, start: Start, version: str = "1.0.0") -> None:
        folder = self._folder(start)
        if not folder.exists():
            shutil.copytree(CHECKOUT / "models" / start.folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
        settings = (f"model.version={version}", *QUICK, *start.settings, *(f"data.options.{item}" for item in self._data(start)))
        flags = [flag for setting in settings for flag in ("--set", setting)]
        untracked = {"EDGEWRIGHT_TRACKING": "off"}  # MLflow takes as long as these builds themselves
        self.fleet.run("toolchain", "build", str(folder / "recipe.toml"), "--out", str(self.fleet.out), *flags, env=untracked)

    def roll_out(self, start: Start, version: str = "1.0.0", **plan: Any) -> str:
        self.fleet.publish(self.release(start, version))
        return roll_out_at_once(self.fleet, version, model=start.model, labels={"name": DEVICE}, **plan)

    def release(self, start: Start, version: str = "1.0.0") -> Path:
        return self.fleet.out / start.model / version

    def splits(self, start: Start) -> dict[str, Any]:
        """What the start's own data source returns."""
        options = dict(item.split("=") for item in self._data(start))
        with loaded(find_callable(start.source, self._folder(start), "test"), "test") as module:
            found: dict[str, Any] = module.splits(**options)
        return found

    def infer(self, start: Start, rows: np.ndarray, batch: int = 20) -> np.ndarray:
        client = DigitsClient(self.fleet.devices[DEVICE].port, start.model)
        answers = [client.infer(rows[first : first + batch]) for first in range(0, len(rows), batch)]
        client.close()
        return np.concatenate(answers)

    def drift(self, start: Start) -> dict[str, Any] | None:
        """The newest judgement of the start's streams, if there is one."""
        with self.fleet.client() as client:
            return next((dict(found) for found in client.drift(DEVICE)["models"] if found["model"] == start.model), None)

    def serves(self, start: Start, version: str) -> bool:
        with self.fleet.client() as client:
            return serving_version(client.device(DEVICE), start.model) == version

    def rows_seen(self, start: Start) -> int:
        with self.fleet.client() as client:
            return sum(window["rows"] for window in client.windows(DEVICE, model=start.model))

    def _folder(self, start: Start) -> Path:
        return self._home / start.folder

    def _data(self, start: Start) -> tuple[str, ...]:
        return (f"path={self._home / 'ToyCar'}",) if start.kind == "anomaly" else ()


@pytest.fixture(scope="module")
def bench(fleet: LocalFleet, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """All four starts on the device."""
    bench = Bench(fleet, tmp_path_factory.mktemp("starts"))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(bench.build, STARTS))
    for rollout in [bench.roll_out(start) for start in STARTS]:
        wait_for_state(fleet, rollout, "done")
    return bench


@pytest.fixture(scope="module")
def page(fleet: LocalFleet) -> Iterator[Callable[[str], str]]:
    """A dashboard page's text, for someone who is signed in."""
    with httpx.Client(base_url=fleet.url, follow_redirects=True) as browser:
        csrf = browser.get("/login").text.split('name="csrf" value="', 1)[1].split('"', 1)[0]
        assert browser.post("/login", data={"csrf": csrf, "token": fleet.admin_token}).status_code == 200
        yield lambda path: browser.get(path).raise_for_status().text


@each_start
def test_the_fleet_shows_the_metric_the_release_was_judged_by(bench: Bench, page: Callable[[str], str], start: Start) -> None:
    with bench.fleet.client() as client:
        (artifact,) = client.release(start.model, "1.0.0")["artifacts"]
    (metric,) = artifact["manifest"]["metrics"]
    assert (metric["name"], metric["goal"], metric["split"]) == (start.metric, start.goal, "test")
    assert artifact["manifest"]["output_kind"] == start.kind
    shown = page(f"/releases/{start.model}/1.0.0")
    assert f'<p class="figure-label">{start.metric}</p><p class="figure-value">{float(metric["value"]):.4g}'[:-1] in shown


@each_start
def test_the_device_answers_as_the_model_and_as_well_as_promised(bench: Bench, start: Start) -> None:
    """Against ONNX Runtime itself over the released file, and by the release's own metric over the test split."""
    import onnxruntime

    rows, wanted = bench.splits(start)["test"]
    answers = bench.infer(start, rows)
    (folder,) = (path for path in bench.release(start).iterdir() if path.is_dir())
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    (own,) = session.run(None, {session.get_inputs()[0].name: rows})
    assert np.allclose(answers, own, rtol=1e-4, atol=1e-5)
    (metric,) = json.loads((folder / "manifest.json").read_text())["metrics"]
    assert SCORES[start.metric](answers, wanted) == pytest.approx(float(metric["value"]), rel=1e-4)


@each_start
def test_drift_is_quiet_on_what_is_known_and_names_the_feature_that_moved(
    bench: Bench, page: Callable[[str], str], start: Start
) -> None:
    known, _ = bench.splits(start)["validation"]
    generator = np.random.default_rng(0)

    def send_until(shift: Callable[[np.ndarray], np.ndarray], look: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        def look_again() -> dict[str, Any] | None:
            bench.infer(start, shift(known[generator.integers(0, len(known), 40)]))
            found = bench.drift(start)
            return found if found and look(found) else None

        return wait_for(f"drift of {start.model}", look_again, 40)

    before = bench.rows_seen(start)
    clean = send_until(lambda rows: rows, lambda found: bench.rows_seen(start) >= before + BLOCK)
    names = {kind: {stream["name"] for stream in clean["streams"] if stream["kind"] == kind} for kind in ("input", "output")}
    assert len(names["input"]) == start.inputs
    assert names["output"] == set(start.outputs)
    assert clean["state"] == "clean", clean["streams"][:3]
    alarm = send_until(start.shift, lambda found: found["state"] == "alarm")
    assert alarm["streams"][0]["name"] == start.moved, alarm["streams"][:4]
    assert f'data-testid="stream-{start.moved}" data-rank="1" data-state="alarm"' in page(f"/devices/{DEVICE}/drift")


def test_a_gate_stops_a_forest_whose_class_mix_has_changed(bench: Bench) -> None:
    """1.0.1 is the same forest; what it sees after the update is all of one kind, so the gate cannot let it pass."""
    rows, labels = bench.splits(FOREST)["validation"]
    bench.infer(FOREST, rows)
    wait_for("the windows before the update", lambda: bench.rows_seen(FOREST) >= len(rows), 20)
    bench.build(FOREST, "1.0.1")
    rollout = bench.roll_out(FOREST, "1.0.1", stages=[{"percent": 100, "soak_s": 60}], gates={"min_rows": 20})
    wait_for("1.0.1 serves", lambda: bench.serves(FOREST, "1.0.1"), 30)

    def stopped() -> dict[str, Any] | None:
        bench.infer(FOREST, rows[labels == 2])
        with bench.fleet.client() as client:
            found = client.rollout(rollout)
        return dict(found) if found["state"] == "rolled_back" else None

    verdicts = {verdict["gate"]: verdict for verdict in wait_for("the rollout goes back", stopped, 40)["verdicts"]}
    assert verdicts["class_mix"]["decision"] == "fail"
    assert "100.0% of predictions" in verdicts["class_mix"]["reason"]
