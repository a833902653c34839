"""Who tries what next? Every worker of a study asks here, and hands in here what it found.

Claims are made one at a time. A trial is finished once its outcome stands in the study; one whose worker died before that runs
again with the same settings. Settings that were tried are not tried again: their outcome is taken over.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from toolchain.pipeline.record import TrialResult
from toolchain.recipe import TuneSection
from toolchain.tune.claims import Stamp, beating, is_alive, own_stamp
from toolchain.tune.scores import Finished, Outcome
from toolchain.tune.space import Params, Space
from toolchain.tune.storage import STUDIES, exclusive, open_storage

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

POPULATION = 10
"""NSGA-II's generations: Optuna's 50 would make a usual budget one generation of random trials. Fixed, so that a larger budget goes
on with the same generations."""
ATTEMPTS = 20
"""How often a sampler may propose what another worker is busy with before this one waits for it."""
_UNSTAMPED_SECONDS = 60.0
"""A claim is stamped within milliseconds; on another machine, whose lock is not ours, one without a stamp is given this long."""

WRITTEN, OUTSIDE, STAMP, RELEASED, OUTCOME, AGAIN, DISCARDED = (
    "as written", "outside the space", "worker", "released", "outcome", "again", "discarded",
)  # fmt: skip
"""Attributes of trials. OUTSIDE: the recipe as written has no place in the space; AGAIN: number of the trial it repeats."""
_GRID, YARDSTICK = "grid queued", "yardstick"


class Claim(msgspec.Struct, frozen=True):
    """A trial to run. params: None for the recipe as written where that lies outside the space."""

    trial: Any
    params: Params | None
    is_written: bool

    @property
    def number(self) -> int:
        return int(self.trial.number)


class Desk:
    """One study. Raises RecipeError where its storage cannot be opened."""

    def __init__(self, tune: TuneSection, space: Space, cache_root: Path, name: str, goal: str) -> None:
        import optuna
        from optuna.study import StudyDirection

        optuna.logging.set_verbosity(optuna.logging.ERROR)  # progress is told by the build, in its own words
        self._tune = tune
        self._space = space
        self._lock = cache_root / STUDIES / f"{name}.lock"
        self._distributions = space.distributions()
        directions = [
            StudyDirection.MAXIMIZE if item == "metric" and goal == "max" else StudyDirection.MINIMIZE for item in tune.objectives
        ]
        storage = open_storage(tune.storage, cache_root, name)
        with exclusive(self._lock):
            self._study: Study = optuna.create_study(
                storage=storage, study_name=name, directions=directions, load_if_exists=True, pruner=_pruner(tune),
                sampler=_sampler(tune, 0),
            )  # fmt: skip
            self._queue_written()

    def claim(self) -> Claim | None:
        """The next trial, None where this worker should wait or stop: `is_over` says which."""
        with exclusive(self._lock):
            self._reclaim()
            for _ in range(ATTEMPTS):
                if not self._may_start():
                    return None
                claim = self._draw()
                if claim is not None:
                    return claim
        return None

    @property
    def is_over(self) -> bool:
        """Whether the budget is used up and nobody is busy any more. A dead worker's trial is put back first."""
        with exclusive(self._lock):
            self._reclaim()
            return not self._may_start() and not _running(self._trials()) and self._written_is_finished(self._trials())

    @contextmanager
    def working(self, claim: Claim) -> Iterator[None]:
        """Show signs of life; where the work is broken off, let others know that the trial is free."""
        try:
            with beating(lambda stamp: claim.trial.set_user_attr(STAMP, msgspec.to_builtins(stamp))):
                yield
        except BaseException:
            claim.trial.set_user_attr(RELEASED, True)
            raise

    def finish(self, claim: Claim, outcome: Outcome) -> None:
        """Keep what a trial gave. Once the outcome is written the trial counts, whatever happens to this process."""
        with exclusive(self._lock):  # two writers at once make SQLite wait for its whole timeout
            self._keep(claim, outcome)

    def _keep(self, claim: Claim, outcome: Outcome) -> None:
        trial: Trial = claim.trial
        if outcome.state == "complete":
            for name, margin in outcome.margins.items():
                trial.set_constraint(name, margin)
        trial.set_user_attr(OUTCOME, msgspec.to_builtins(outcome))
        self._tell(trial.number, outcome, is_outside=claim.params is None)

    def finished(self) -> list[Finished]:
        """Trials within the budget, the recipe as written first; a repeated one under the number it had at first."""
        trials = self._trials()
        repeats = {trial.number: trial.user_attrs[AGAIN] for trial in trials if AGAIN in trial.user_attrs}

        def origin(number: int) -> int:
            while number in repeats:
                number = repeats[number]
            return number

        found = [_as_finished(trial, origin) for trial in trials if _is_finished(trial)]
        return sorted(found, key=lambda item: item.trial.number)[: self._tune.trials]

    @property
    def spent_seconds(self) -> float:
        """Of the budget: what the trials took, shared among the workers. Earlier sessions count."""
        return sum(item.outcome.seconds for item in self.finished()) / self._tune.workers

    @property
    def total(self) -> int:
        """Trials there can be at most."""
        size = self._space.size
        if size is None:
            return self._tune.trials
        return min(self._tune.trials, size + (self._space.as_written() is None))

    def yardstick(self) -> dict[str, Any]:
        """What the recipe as written left for the other trials to be compared with."""
        found: dict[str, Any] = self._study.user_attrs.get(YARDSTICK, {})
        return found

    def set_yardstick(self, value: dict[str, Any]) -> None:
        self._study.set_user_attr(YARDSTICK, value)

    def _trials(self) -> "list[FrozenTrial]":
        return self._study.get_trials(deepcopy=False)

    def _may_start(self) -> bool:
        trials = self._trials()
        done, busy = [trial for trial in trials if _is_finished(trial)], _running(trials)
        if not self._written_is_finished(trials):
            return not busy  # it alone at first: the others are compared with it, and what is wrong with the recipe shows
        if len(done) + len(busy) >= self._tune.trials or (self._tune.seconds and self.spent_seconds >= self._tune.seconds):
            return False
        tried = {_key(trial.params) for trial in (*done, *busy) if OUTSIDE not in trial.user_attrs}
        return self._space.size is None or len(tried) < self._space.size

    def _draw(self) -> Claim | None:
        """Start one trial; None where it needs no work, or somebody else is at it."""
        import optuna

        if self._tune.sampler == "grid" and self._written_is_finished(self._trials()):
            self._queue_grid()
        before = self._trials()
        # A seed for each draw, so that a search that was broken off goes on as it would have gone.
        lost = sum(_is_lost(trial) for trial in before)
        self._study.sampler = _sampler(self._tune, len(before) - lost)
        trial = self._study.ask()
        trial.set_user_attr(STAMP, msgspec.to_builtins(own_stamp()))
        is_written = WRITTEN in trial.user_attrs
        if OUTSIDE in trial.user_attrs:
            return Claim(trial, None, is_written)
        params = {key: _suggest(trial, key, found) for key, found in self._distributions.items()}
        same = [other for other in before if OUTSIDE not in other.user_attrs and _key(other.params) == _key(params)]
        known = next((other for other in same if _is_finished(other)), None)
        claim = Claim(trial, params, is_written)
        if known is not None:
            outcome = _outcome(known)
            first = known.number if outcome.same_as is None else outcome.same_as
            self._keep(claim, msgspec.structs.replace(outcome, seconds=0.0, same_as=first))
            return None
        if any(other.state == optuna.trial.TrialState.RUNNING for other in same):
            trial.set_user_attr(DISCARDED, True)
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            return None
        return claim

    def _reclaim(self) -> None:
        """Put back what dead workers left: told where its outcome is known, else queued once more. Repeating this is harmless."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        for trial in _running(self._trials()):
            if not _is_stale(trial, is_shared=bool(self._tune.storage)):
                continue
            try:
                if OUTCOME in trial.user_attrs:
                    self._tell(trial.number, _outcome(trial), is_outside=OUTSIDE in trial.user_attrs)
                else:
                    self._study.tell(trial.number, state=TrialState.FAIL)
            except (UpdateFinishedTrialError, ValueError):  # another machine was faster
                continue
        trials = self._trials()
        repeated = {trial.user_attrs.get(AGAIN) for trial in trials}
        for trial in trials:
            if _is_lost(trial) and trial.number not in repeated:
                kept = {name: value for name, value in trial.user_attrs.items() if name in (WRITTEN, OUTSIDE)}
                params = trial.params or trial.system_attrs.get("fixed_params", {})
                self._study.enqueue_trial(params, user_attrs={**kept, AGAIN: trial.number})

    def _tell(self, number: int, outcome: Outcome, *, is_outside: bool) -> None:
        from optuna.trial import TrialState

        if outcome.state == "complete" and not is_outside:
            self._study.tell(number, list(outcome.values))
        elif outcome.state == "pruned":
            self._study.tell(number, state=TrialState.PRUNED)
        else:  # what has no place in the space can teach no sampler: the outcome counts all the same
            self._study.tell(number, state=TrialState.FAIL)

    def _queue_written(self) -> None:
        if any(WRITTEN in trial.user_attrs for trial in self._trials()):
            return
        params = self._space.as_written()
        attributes = {WRITTEN: True} if params is not None else {WRITTEN: True, OUTSIDE: True}
        self._study.enqueue_trial(params or {}, user_attrs=attributes)

    def _queue_grid(self) -> None:
        """All points at once: a queued trial goes to one worker only, on however many machines."""
        if self._study.user_attrs.get(_GRID):
            return
        known = {_key(trial.params or trial.system_attrs.get("fixed_params", {})) for trial in self._trials()}
        points = [params for params in self._space.grid() if _key(params) not in known]
        # Shuffled, so that a budget smaller than the grid still sees all of it thinly.
        for params in sorted(points, key=lambda params: hashlib.sha256(f"{self._tune.seed} {_key(params)}".encode()).digest()):
            self._study.enqueue_trial(params)
        self._study.set_user_attr(_GRID, True)

    def _written_is_finished(self, trials: "list[FrozenTrial]") -> bool:
        return any(WRITTEN in trial.user_attrs and _is_finished(trial) for trial in trials)


def _is_finished(trial: "FrozenTrial") -> bool:
    return OUTCOME in trial.user_attrs and trial.state.is_finished()


def _is_lost(trial: "FrozenTrial") -> bool:
    """Ended without an outcome: its worker died."""
    return trial.state.is_finished() and OUTCOME not in trial.user_attrs and DISCARDED not in trial.user_attrs


def _running(trials: "list[FrozenTrial]") -> "list[FrozenTrial]":
    from optuna.trial import TrialState

    return [trial for trial in trials if trial.state == TrialState.RUNNING]


def _is_stale(trial: "FrozenTrial", *, is_shared: bool) -> bool:
    """is_shared: whether workers that our lock does not hold back may be just between claiming and stamping."""
    if RELEASED in trial.user_attrs:
        return True
    if STAMP not in trial.user_attrs:
        begun = trial.datetime_start
        return not is_shared or begun is None or time.time() - begun.timestamp() > _UNSTAMPED_SECONDS
    return not is_alive(msgspec.convert(trial.user_attrs[STAMP], Stamp))


def _outcome(trial: "FrozenTrial") -> Outcome:
    return msgspec.convert(trial.user_attrs[OUTCOME], Outcome)


def _as_finished(trial: "FrozenTrial", origin: Callable[[int], int]) -> Finished:
    outcome = _outcome(trial)
    same_as = None if outcome.same_as is None else origin(outcome.same_as)
    result = TrialResult(
        number=origin(trial.number), settings=dict(sorted(trial.params.items())), state=outcome.state, values=outcome.values,
        violated=outcome.violated, seconds=outcome.seconds, same_as=same_as, error=outcome.error,
    )  # fmt: skip
    return Finished(trial=result, outcome=outcome)


def _key(params: Any) -> str:
    """Equal for equal settings, and 1, 1.0 and true are three of them."""
    return msgspec.json.encode(dict(params), order="deterministic").decode()


def _suggest(trial: "Trial", key: str, found: Any) -> Any:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(found, CategoricalDistribution):
        return trial.suggest_categorical(key, found.choices)
    suggest = trial.suggest_int if isinstance(found, IntDistribution) else trial.suggest_float
    return suggest(key, found.low, found.high, step=found.step, log=found.log)


def _sampler(tune: TuneSection, draw: int) -> "BaseSampler":
    from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

    seed = int.from_bytes(hashlib.sha256(f"{tune.seed} {draw}".encode()).digest()[:4], "big")
    if tune.sampler == "nsga2":
        return NSGAIISampler(population_size=POPULATION, seed=seed)
    if tune.sampler == "tpe":
        return TPESampler(seed=seed)
    return RandomSampler(seed=seed)  # a grid is queued whole, and leaves nothing to draw


def _pruner(tune: TuneSection) -> "BasePruner":
    from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner

    if tune.pruner == "median":
        return MedianPruner(n_startup_trials=3, n_warmup_steps=1)
    return SuccessiveHalvingPruner() if tune.pruner == "halving" else NopPruner()
