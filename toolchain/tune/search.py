"""How does a build with [tune] find the settings it goes on with?

The search is a stage: finished, it is taken from the cache like any other, and nothing heavy is imported. The study behind it is
kept by what decides its trials, without the budget: more trials continue it, and a killed search goes on where it was.
"""

import time
from pathlib import Path
from typing import Any

import msgspec

from toolchain.benchmark.metrics import Metric, resolve_metrics
from toolchain.data.code import bytes_digest
from toolchain.data.load import load_data
from toolchain.data.source import DataSource
from toolchain.errors import RecipeError
from toolchain.pipeline import stages
from toolchain.pipeline.build import Settings
from toolchain.pipeline.products import SteeringData
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.record import StageRun, TrialResult, TuningResult
from toolchain.pipeline.stage import Runner, Stage, Stored, digest_of
from toolchain.recipe import Recipe, TuneSection, in_graph_of
from toolchain.report.wording import seconds as seconds_text
from toolchain.targets import Host, Profile, load_profile
from toolchain.train.network import ONNX, NetworkSource
from toolchain.train.stage import Training
from toolchain.tune.space import Space

REVISION = 2
_TOOLS = (
    "optuna", "torch", "onnx", "onnxruntime", "openvino", "tensorrt", "nncf", "neural-compressor", "torchao", "torch-pruning",
)  # fmt: skip
"""Whatever trains, compresses or runs a trial's variants: another version may lead to another winner."""


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """The recipe a build goes on with: as written where there is no [tune]. runs: what the search itself executed.

    digest: of the search's result, "" without one.
    """

    recipe: Recipe
    result: TuningResult | None = None
    digest: str = ""
    runs: tuple[StageRun, ...] = ()

    def explain(self, text: str) -> str:
        """Add to the reason why nothing passed that a search did not help."""
        if self.result is None:
            return text
        trial = next(trial for trial in self.result.trials if trial.number == self.result.best)
        return f"{text}; the nearest of {len(self.result.trials)} trials, number {trial.number} ({settings_text(trial)})"


def tuned(recipe: Recipe, path: Path, settings: Settings, runner: Runner, host: Host) -> Tuned:
    """Search where the recipe asks for it. path: the recipe's file. Raises RecipeError before anything runs, else as trials do."""
    if recipe.tune is None:
        return Tuned(recipe=recipe)
    space = Space(recipe, str(path))
    _require_possible(recipe, path, settings, host)
    # A runner of its own: what a search used is no part of what the packages are made with.
    apart = Runner(runner.cache, runner.progress, runner.project)
    stored = apart.execute(_Search(recipe, path, settings, apart, host).stage())
    found = stored.value
    best = next(trial for trial in found.trials if trial.number == found.best)
    return Tuned(recipe=space.apply(best.settings), result=found, digest=stored.digest, runs=tuple(apart.runs))


def settings_text(trial: TrialResult) -> str:
    return ", ".join(f"{key}={_short(value)}" for key, value in trial.settings.items()) or "the recipe as written"


class _Search:
    """One search: what it depends on, and how it is made."""

    def __init__(self, recipe: Recipe, path: Path, settings: Settings, runner: Runner, host: Host) -> None:
        assert recipe.tune is not None
        self.recipe = recipe
        self.tune: TuneSection = recipe.tune
        self.path = path
        self.settings = settings
        self.runner = runner
        self.host = host
        self.metrics = resolve_metrics(recipe, path.parent)

    def stage(self) -> Stage[TuningResult]:
        config, inputs = self._config(), self._inputs()
        study = Stage(
            name="study", revision=REVISION, kind=TuningResult, make=self.make, config=config, inputs=inputs, tools=_TOOLS
        )
        self.study = digest_of(study.ingredients())
        return msgspec.structs.replace(
            study, name="search", config={**config, "trials": self.tune.trials, "seconds": self.tune.seconds}, summary=_summary
        )

    def make(self, work: Path, progress: Progress) -> TuningResult:
        from toolchain.tune.scores import pick
        from toolchain.tune.trial import Bench, Job
        from toolchain.tune.worker import work as work_alone
        from toolchain.tune.worker import work_together

        job = Job(
            recipe=self.recipe, source=str(self.path), cache=str(self.runner.cache.root), study=self.study,
            goal=self.metrics[0].goal, targets=self.settings.targets, allow_unmeasured=self.settings.allow_unmeasured,
        )  # fmt: skip
        desk = job.desk()
        teller = Teller(desk, self.tune, self.metrics[0], progress)
        if self.tune.workers == 1:
            work_alone(desk, Bench(job, self.runner.cache, desk), teller.tell)
        else:
            work_together(job, self.tune.workers, teller.tell)
        finished = desk.finished()
        best, reason = pick(finished, self.tune.objectives, self.metrics[0].goal, self.metrics[0].max_drop)
        return TuningResult(
            sampler=self.tune.sampler, objectives=self.tune.objectives, trials=tuple(item.trial for item in finished),
            best=best.trial.number, reason=reason,
        )  # fmt: skip

    def _config(self) -> dict[str, Any]:
        """What decides the trials. Not the release's name and texts, nor the budget, nor who works on it."""
        model, tune = self.recipe.model, self.tune
        profiles: dict[str, Profile] = {name: load_profile(name, self.path.parent) for name in self._target_names()}
        return {
            "network": model.network, "options": model.options, "output kind": model.output_kind, "scores": model.scores,
            "data": self.recipe.data, "train": self.recipe.train, "compress": self.recipe.compress, "metrics": self.recipe.metrics,
            "targets": self.recipe.targets, "target flags": self.settings.targets, "profiles": profiles,
            "allow unmeasured": self.settings.allow_unmeasured, "space": tune.space, "sampler": tune.sampler,
            "pruner": tune.pruner, "objectives": tune.objectives, "sampler seed": tune.seed,
            "cpu": self.host.cpu, "cpu flags": digest_of(sorted(self.host.flags)),
        }  # fmt: skip

    def _inputs(self) -> dict[str, str]:
        """Contents: the data, the code, the weights. What training depends on, the training stage knows best."""
        folder = self.path.parent
        splits = load_data(self.runner, self.recipe, folder)
        data = splits.part(splits.value.steering, splits.value.steering.digest)
        inputs = {"training and validation data": data.digest, "first model": digest_of(self._first_stage(data).ingredients())}
        inputs |= {f"metric {metric.name}": digest_of(metric.identity) for metric in self.metrics}
        if any(key.startswith("data.") for key in self.tune.space):
            source = DataSource(self.recipe.data.source, self.recipe.data.options, folder, self.runner.cache)
            inputs["code of the data source"] = bytes_digest(source.closure)
        compress = self.recipe.compress
        if compress.teacher:
            teacher = msgspec.structs.replace(self.recipe.model, network=compress.teacher, options=compress.teacher_options)
            inputs["code of the teacher"] = NetworkSource(teacher, folder, "compress.teacher").code
        for place, found in self.tune.space.items():
            if place == "model.network":
                inputs |= {f"code of {text}": self._network_code(str(text)) for text in found.choices}
        return inputs

    def _first_stage(self, data: Stored[SteeringData]) -> Stage[Any]:
        folder = self.path.parent
        if self.recipe.model.network.startswith(ONNX):
            from toolchain.convert.start import onnx_file

            return stages.from_onnx(onnx_file(self.recipe.model, folder), data)
        source = NetworkSource(self.recipe.model, folder, in_graph=in_graph_of(self.recipe))
        return Training(recipe=self.recipe, folder=folder, source=source, metric=self.metrics[0], data=data).stage()

    def _network_code(self, text: str) -> str:
        model = msgspec.structs.replace(self.recipe.model, network=text)
        if not text.startswith(ONNX):
            return NetworkSource(model, self.path.parent).code
        from toolchain.convert.start import onnx_file
        from toolchain.files import sha256_file

        return sha256_file(onnx_file(model, self.path.parent))

    def _target_names(self) -> list[str]:
        return list(self.settings.targets) or [target.profile for target in self.recipe.targets]


class Teller:
    """Tells each finished trial once, with what it gave and how long the budget may still take."""

    def __init__(self, desk: Any, tune: TuneSection, metric: Metric, progress: Progress) -> None:
        self._desk = desk
        self._tune = tune
        self._metric = metric
        self._progress = progress
        self._told = {item.trial.number for item in desk.finished()}
        if self._told:
            progress.note(f"the search goes on: {len(self._told)} of at most {desk.total} trials are finished")
        self._begun, self._before = time.monotonic(), len(self._told)

    def tell(self) -> None:
        finished = self._desk.finished()
        new = [item for item in finished if item.trial.number not in self._told]
        for item in new:
            self._told.add(item.trial.number)
            text = f"{self._text(item.trial)}{self._left() if item is new[-1] else ''}"
            self._progress.note(text)  # each one, where ticks may be thinned
            self._progress.tick(len(self._told), self._desk.total, "")

    def _left(self) -> str:
        """Time to the end of the budget at the pace of this session, "" at the end."""
        left = self._desk.total - len(self._told)
        seconds = left * (time.monotonic() - self._begun) / max(1, len(self._told) - self._before)
        if self._tune.seconds is not None:
            seconds = min(seconds, self._tune.seconds - self._desk.spent_seconds)
        return f"; {left} left, about {seconds_text(seconds)}" if left > 0 and seconds > 0 else ""

    def _text(self, trial: TrialResult) -> str:
        head = f"trial {trial.number} ({settings_text(trial)}): "
        if trial.state != "complete":
            return f"{head}{trial.error or 'stopped early'}, {trial.seconds:.1f} s"
        figures = ", ".join(self._figure(name, value) for name, value in zip(self._tune.objectives, trial.values, strict=True))
        missed = f", misses {' and '.join(trial.violated)}" if trial.violated else ""
        spent = f"as trial {trial.same_as}" if trial.same_as is not None else f"{trial.seconds:.1f} s"
        return f"{head}{figures}{missed}, {spent}"

    def _figure(self, objective: str, value: float) -> str:
        if objective == "latency":
            return f"{value / 1000:.1f} us"
        return f"{value / 1024:.1f} KiB" if objective == "size" else f"validation {self._metric.name} {value:.4f}"


def _require_possible(recipe: Recipe, path: Path, settings: Settings, host: Host) -> None:
    """What the search as a whole cannot do, said before it begins."""
    tune = recipe.tune
    assert tune is not None
    first = settings.targets[0] if settings.targets else recipe.targets[0].profile
    if "latency" in tune.objectives and not host.fits(load_profile(first, path.parent)):
        raise RecipeError(
            f"{path}: tune.objectives: latency cannot be measured, for this host ({host.arch}) is no {first}; "
            "search on such a device, or leave latency out"
        )
    if len(set(tune.objectives)) != len(tune.objectives):
        raise RecipeError(f"{path}: tune.objectives: one of them is there twice")
    if tune.pruner == "none":
        return
    if tune.objectives != ("metric",):
        raise RecipeError(
            f'{path}: tune.pruner: "{tune.pruner}" stops trainings by their validation metric, so it needs tune.objectives = ["metric"]; '
            "Optuna prunes no study of several objectives"
        )
    if recipe.train is None or recipe.train.processes > 1:
        raise RecipeError(f"{path}: tune.pruner: needs [train] in one process, whose epochs it can judge")


def _summary(result: TuningResult) -> str:
    best = next(trial for trial in result.trials if trial.number == result.best)
    return f"trial {best.number} of {len(result.trials)} ({settings_text(best)}): {result.reason}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
