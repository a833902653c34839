"""Does a build with [tune] go on with the best settings, and is a finished search free? Real builds, on small data."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toolchain.conftest import Project, ran
from tests.toolchain.tune.conftest import QUICK
from toolchain.errors import LimitError, RecipeError
from toolchain.pipeline.record import BuildResult, TuningResult

ROOT = Path(__file__).parents[3]


def tuning(result: BuildResult) -> TuningResult:
    assert result.tuning is not None
    return result.tuning


@pytest.fixture(scope="module")
def searched(shared: Project) -> tuple[Project, BuildResult]:
    return shared, shared.build(*QUICK)


def test_the_build_goes_on_with_the_winner_s_settings(searched: tuple[Project, BuildResult]) -> None:
    _, result = searched
    found = tuning(result)
    assert [trial.number for trial in found.trials] == [0, 1, 2, 3]
    assert found.trials[0].settings == {"model.options.hidden": 32, "train.batch_size": 32}  # the recipe as written
    assert all(trial.state == "complete" and len(trial.values) == 2 for trial in found.trials)
    best = next(trial for trial in found.trials if trial.number == found.best)
    assert result.recipe.train is not None
    assert result.recipe.train.batch_size == best.settings["train.batch_size"]
    assert result.recipe.model.options["hidden"] == best.settings["model.options.hidden"]
    assert best.values[0] == result.targets[0].variants[0].metrics[0].value
    assert [stage.name for stage in result.stages if stage.name in ("load data", "search")] == ["load data", "search"]


def test_a_recipe_written_with_the_winner_s_settings_gives_the_same_package(
    searched: tuple[Project, BuildResult], make_project: Callable[[str], Project]
) -> None:
    project, result = searched
    plain = make_project("breast_cancer")
    plain.cache_root = project.cache_root
    best = next(trial for trial in tuning(result).trials if trial.number == tuning(result).best)
    same = plain.build(*QUICK, *(f"{key}={value}" for key, value in best.settings.items()))
    assert same.recipe == result.recipe
    assert same.targets[0].manifest_sha256 == result.targets[0].manifest_sha256
    assert same.tuning is None


def test_a_finished_search_is_not_run_again_and_imports_nothing(searched: tuple[Project, BuildResult]) -> None:
    project, first = searched
    program = (
        "import sys\nfrom toolchain.cli import main\n"
        f"sys.argv = ['toolchain', 'build', {str(project.recipe)!r}, '--out', {str(project.out)!r}, '--explain',"
        f" *(part for text in {QUICK!r} for part in ('--set', text))]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    status = stop.code\n"
        "print(status, sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    environment = {**os.environ, "EDGEWRIGHT_CACHE": str(project.cache_root)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert "nothing changed" in done.stdout
    assert "search: reused (nothing it depends on changed)" in done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("0 ")
    for heavy in ("optuna", "torch", "onnxruntime", "sqlalchemy", "mlflow", "sklearn"):
        assert f"'{heavy}'" not in last
    assert tuning(project.build(*QUICK)) == tuning(first)


def test_more_trials_continue_the_search(searched: tuple[Project, BuildResult]) -> None:
    project, first = searched
    more = project.build(*QUICK, "tune.trials=6")
    assert tuning(more).trials[:4] == tuning(first).trials
    assert len(tuning(more).trials) == 6
    why = next(stage.why for stage in more.stages if stage.name == "search")
    assert why == "trials 4 -> 6"
    assert any("the search goes on: 4 of at most 6 trials are finished" in note for note in project.notes)


def test_a_new_version_of_the_release_needs_no_new_search(searched: tuple[Project, BuildResult]) -> None:
    project, _ = searched
    assert "search" not in ran(project.build(*QUICK, "model.version=1.0.1", "tune.workers=2"))


def test_what_none_passes_is_exit_3_with_the_nearest_saved(searched: tuple[Project, BuildResult]) -> None:
    project, _ = searched
    with pytest.raises(LimitError) as found:
        project.build(*QUICK, "target.max_size_kb=0.5", 'tune.objectives=["size"]')
    text = str(found.value)
    assert "no variant meets max_size_kb = 0.5; nearest is onnxruntime-float32" in text
    assert "the nearest of 4 trials, number" in text
    assert "not to be released" in text
    folder = project.out / "nearest" / "breast-cancer" / "1.0.0" / "x86-64-cpu"
    assert (folder / "model.onnx").stat().st_size > 500
    # The nearest is the smallest one: a search that only repeats the recipe as written would not find it.
    assert "hidden=32" not in text


def test_a_limit_keeps_a_better_trial_out(searched: tuple[Project, BuildResult]) -> None:
    project, _ = searched
    space = 'tune.space={"model.options.hidden" = {choices = [8, 32]}}'
    result = project.build(*QUICK, space, "target.max_size_kb=5", "tune.sampler=grid", 'tune.objectives=["metric"]')
    found = tuning(result)
    assert [trial.violated for trial in found.trials] == [("max_size_kb",), ()]  # two are all there are
    assert found.best == 1
    assert result.targets[0].variants[0].size_bytes <= 5000


def test_the_median_pruner_stops_a_hopeless_training(searched: tuple[Project, BuildResult]) -> None:
    project, _ = searched
    space = 'tune.space={"train.learning_rate" = {choices = [0.003, 0.004, 0.005, 0.006, 1e-9]}}'
    result = project.build(
        "train.epochs=6", *QUICK[1:], space, "tune.sampler=grid", "tune.trials=5", 'tune.objectives=["metric"]',
        "tune.pruner=median",
    )  # fmt: skip
    hopeless = next(trial for trial in tuning(result).trials if trial.settings == {"train.learning_rate": 1e-9})
    assert hopeless.state == "pruned"


def test_a_trial_that_fails_is_one_trial(searched: tuple[Project, BuildResult]) -> None:
    project, _ = searched
    space = 'tune.space={"model.options.hidden" = {choices = [32, -1]}}'
    result = project.build(*QUICK, space, "tune.sampler=grid", 'tune.objectives=["metric"]')
    failed = next(trial for trial in tuning(result).trials if trial.settings == {"model.options.hidden": -1})
    assert failed.state == "failed"
    assert failed.error
    assert tuning(result).best == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (("tune.pruner=median",), r'needs tune\.objectives = \["metric"\]'),
        (('tune.objectives=["metric", "metric"]',), "one of them is there twice"),
        (('tune.space={"train.epoch" = {low = 1, high = 2}}',), r"tune\.space\.train\.epoch: unknown key"),
        (("target.profile=generic-arm64", "target.max_latency_ms=1"), "latency cannot be measured"),
    ],
)
def test_what_a_search_cannot_do_is_said_before_it_begins(
    searched: tuple[Project, BuildResult], changes: tuple[str, ...], expected: str
) -> None:
    project, _ = searched
    with pytest.raises(RecipeError, match=expected):
        project.build(*QUICK, *changes)


def build_command(project: Project, *changes: str) -> "subprocess.Popen[str]":
    arguments = ["build", str(project.recipe), "--out", str(project.out)]
    for change in (*QUICK, *changes):
        arguments += ["--set", change]
    environment = {**os.environ, "EDGEWRIGHT_CACHE": str(project.cache_root), "PYTHONPATH": str(ROOT)}
    program = f"from toolchain.cli import main; main({arguments!r})"
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, env=environment)


def read_until(process: "subprocess.Popen[str]", word: str, count: int = 1) -> str:
    assert process.stderr is not None
    seen = ""
    while seen.count(word) < count:
        line = process.stderr.readline()
        assert line, f"ended without {word!r}: {seen}"
        seen += line
    return seen


@pytest.mark.slow
def test_a_build_killed_in_its_search_goes_on_where_it_was(tune_project: Project) -> None:
    process = build_command(tune_project)
    read_until(process, "note: trial ", 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    result = tune_project.build(*QUICK)
    found = tuning(result)
    assert any("the search goes on: 2 of at most 4" in note or "goes on: 3 of at most 4" in note for note in tune_project.notes)
    numbers = [trial.number for trial in found.trials]
    assert numbers[:2] == [0, 1], "what had finished is kept; the one that was running may have a number more"
    assert len(numbers) == len(set(numbers)) == 4
    settings = [tuple(trial.settings.items()) for trial in found.trials if trial.same_as is None]
    assert len(set(settings)) == len(settings)


@pytest.mark.slow
def test_two_workers_share_a_search_and_one_killed_costs_its_trial_only(tune_project: Project) -> None:
    process = build_command(tune_project, "tune.workers=2", "tune.sampler=grid", "tune.trials=12")
    read_until(process, "note: trial ", 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()  # ends only when the workers, who hold the same pipe, have ended too
    second = build_command(tune_project, "tune.workers=2", "tune.sampler=grid", "tune.trials=12")
    _, said = second.communicate(timeout=600)
    assert second.returncode == 0
    assert "the search goes on: " in said
    found = tuning(tune_project.build(*QUICK, "tune.workers=2", "tune.sampler=grid", "tune.trials=12"))
    assert [trial.number for trial in found.trials] == list(range(12))
    assert len({tuple(trial.settings.items()) for trial in found.trials}) == 12
    assert all(trial.state == "complete" and trial.same_as is None for trial in found.trials)


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_and_keeps_the_trials(tune_project: Project) -> None:
    process = build_command(tune_project, "tune.workers=2")
    read_until(process, "note: trial ", 1)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    process.communicate()
    assert process.returncode == 130
    assert time.monotonic() - started < 60
    assert len(tuning(tune_project.build(*QUICK)).trials) == 4
    assert any("the search goes on: " in note for note in tune_project.notes)
