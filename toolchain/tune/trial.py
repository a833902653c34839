"""What happens in one trial? The recipe with its settings is built as far as the choice, in the same stage cache, and judged.

Latencies of trials were measured at different times, maybe beside another worker, so each trial's variant is measured once more in
turns with the float model of the recipe as written. The objective is that model's latency, taken once, over the ratio: two trials
differ by what their models differ, not by what the machine did meanwhile.
"""

import hashlib
import time
from pathlib import Path

import msgspec

from runtime.contract.errors import ContractError
from runtime.errors import DaemonError
from toolchain.errors import BuildError, CacheError, MissingError, NetworkError
from toolchain.files import sha256_file
from toolchain.pipeline import stages
from toolchain.pipeline.build import Build, NoneFitsError, Settings, Tried
from toolchain.pipeline.cache import StageCache
from toolchain.pipeline.products import SteeringData, Variant
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.record import EpochResult
from toolchain.pipeline.stage import Runner, Stored
from toolchain.recipe import Recipe
from toolchain.targets import this_host
from toolchain.tune.desk import Claim, Desk
from toolchain.tune.scores import Outcome, error_bar, first_target, judged_variant, margins, values
from toolchain.tune.space import Space

YARDSTICK = "yardstick"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What every worker of a search is told. recipe: with its [tune]; source: its file; study: name of the study."""

    recipe: Recipe
    source: str
    cache: str
    study: str
    goal: str
    targets: tuple[str, ...]
    allow_unmeasured: bool

    def space(self) -> Space:
        return Space(self.recipe, self.source)

    def desk(self) -> Desk:
        if self.recipe.tune is None:
            raise AssertionError("a search without [tune]")
        return Desk(self.recipe.tune, self.space(), Path(self.cache), self.study, self.goal)


class StoppedError(BuildError):
    """The pruner gave up on a trial. It never leaves this module."""


class Bench:
    """Tries trials of one study in this process."""

    def __init__(self, job: Job, cache: StageCache, desk: Desk) -> None:
        assert job.recipe.tune is not None
        self._job = job
        self._tune = job.recipe.tune
        self._cache = cache
        self._desk = desk
        self._space = job.space()
        self._host = this_host()
        # Another project than the build's: what trials ran last must not explain what changed since the last build.
        self._project = hashlib.sha256(f"{job.source}\0search".encode()).hexdigest()

    def run(self, claim: Claim) -> Outcome:
        """Try one trial. Whatever is wrong with its settings is its outcome.

        Raises the error of the recipe as written, and in any trial what would stop every other one too.
        """
        started = time.monotonic()

        def seconds() -> float:
            return round(time.monotonic() - started, 3)

        try:
            found = self._judge(claim)
        except StoppedError:
            return Outcome(state="pruned", seconds=seconds())
        except (CacheError, MissingError):
            raise
        except (BuildError, ContractError, DaemonError) as error:
            if claim.is_written:
                raise
            return Outcome(state="failed", seconds=seconds(), error=" ".join(str(error).split()))
        return msgspec.structs.replace(found, seconds=seconds())

    def _judge(self, claim: Claim) -> Outcome:
        watcher = Watcher(claim, is_pruning=self._tune.pruner != "none")
        build = self._build(self._space.apply(claim.params or {}), watcher)
        try:
            tried = first_target(build.steer())
        except NoneFitsError as error:
            tried = error.tried
        data, _ = build.start()
        if claim.is_written:
            self._desk.set_yardstick({"labels": _labels(data)})
        elif self._desk.yardstick()["labels"] != _labels(data):
            raise NetworkError("its validation labels are not those of the recipe as written, so nothing can be compared")
        made = tried.made[judged_variant(tried)]
        latency_ns = self._latency_ns(claim, tried, data) if "latency" in self._tune.objectives else None
        return Outcome(
            state="complete", seconds=0.0, values=values(made, self._tune.objectives, latency_ns), error_bar=error_bar(made),
            margins=margins(tried, self._job.recipe.metrics[0].max_drop), chosen=made.variant.value.name,
        )  # fmt: skip

    def _latency_ns(self, claim: Claim, tried: Tried, data: Stored[SteeringData]) -> float:
        """Median of one inference, comparable with that of every other trial of this study."""
        build = self._build(self._space.apply({}), Silent())
        own_data, start = build.start()
        if own_data.value.inputs != data.value.inputs:
            raise NetworkError(
                "its inputs are not those of the recipe as written, so latencies cannot be compared; "
                'leave "latency" out of tune.objectives, max_latency_ms holds all the same'
            )
        yardstick = _renamed(start, YARDSTICK)
        own = _renamed(tried.made[judged_variant(tried)].variant, "own")
        stage = stages.measure(
            tried.target.profile, [yardstick, own], data, baseline=YARDSTICK, threads=tried.profile.threads, host=self._host
        )
        found = build.runner.execute(stage).value.latencies
        if claim.is_written:
            self._desk.set_yardstick({**self._desk.yardstick(), "p50_ns": found[YARDSTICK].p50_ns})
        return float(self._desk.yardstick()["p50_ns"]) / found["own"].ratio

    def _build(self, recipe: Recipe, progress: Silent) -> Build:
        settings = Settings(targets=self._job.targets, allow_unmeasured=self._job.allow_unmeasured)
        runner = Runner(self._cache, progress, self._project)
        return Build(recipe, Path(self._job.source).parent, settings, runner, self._host)


class Watcher(Silent):
    """Shows the pruner each epoch of the recipe's own training; what forms are made from it is not compared."""

    def __init__(self, claim: Claim, *, is_pruning: bool) -> None:
        super().__init__()
        self._claim = claim
        self._is_pruning = is_pruning
        self._stage = ""

    def stage(self, name: str, *, ran: bool, why: str) -> None:
        self._stage = name

    def epoch(self, result: EpochResult) -> None:
        if not self._is_pruning or self._stage != "train":
            return
        self._claim.trial.report(result.metric, result.epoch)
        if self._claim.trial.should_prune() and not self._claim.is_written:
            raise StoppedError(f"stopped after epoch {result.epoch + 1}")


def _renamed(variant: Stored[Variant], name: str) -> Stored[Variant]:
    return variant.part(msgspec.structs.replace(variant.value, name=name), variant.digest)


def _labels(data: Stored[SteeringData]) -> str:
    """Digest of the validation labels: where they differ, so do the examples, or their order."""
    return sha256_file(data.folder / data.value.validation.targets)
