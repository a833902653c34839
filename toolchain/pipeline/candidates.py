"""Which variants does a recipe lead to, and what is tried next where one loses too much?

Every form gets every scheme its targets ask for. An int8 scheme that misses the metric's limit is followed by the next rung of its
engine's ladder; what missed stays a candidate, so that the report can say why it is not the one.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from toolchain.benchmark.metrics import Metric
from toolchain.compress.base import Form, Ground, Network, Scheme, variant_name
from toolchain.compress.forms import forms_of
from toolchain.compress.schemes import LADDERS, SCHEMES, named, scheme
from toolchain.errors import MissingError, StageError
from toolchain.pipeline import stages
from toolchain.pipeline.products import BASE, CheckedModel, FloatModel, Precision, SteeringData, Variant
from toolchain.pipeline.record import FormResult
from toolchain.pipeline.stage import ABSENT, Runner, Stored, tool_version
from toolchain.recipe import Recipe, TargetSection
from toolchain.targets import Profile

if TYPE_CHECKING:
    from runtime.backends.base import Availability

BASELINE = "onnxruntime-float32"
"""What every variant's latency is compared with: the float model in the engine that is always there."""

_RUN_ANYWHERE = ("onnxruntime", "openvino")
"""Engines that work wherever they are installed; any other has to say so itself, for it may lack a device or a driver."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """One variant with its figures on the validation split."""

    variant: Stored[Variant]
    checked: Stored[CheckedModel]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a recipe asks for by name, resolved before any work starts. schemes: to be made in any case."""

    forms: tuple[Form, ...]
    schemes: tuple[Scheme, ...]


def wanted_by(recipe: Recipe) -> Wanted:
    """Raises RecipeError for a scheme there is not, or a key that leads to nothing."""
    return Wanted(forms=forms_of(recipe), schemes=tuple(named(text) for text in recipe.compress.schemes))


class Candidates:
    """The forms and variants of one build; each is made once, whoever asks. network: None for an ONNX start."""

    def __init__(  # noqa: PLR0917 - what a build knows once its network is trained
        self,
        recipe: Recipe,
        runner: Runner,
        metrics: tuple[Metric, ...],
        base: Stored[FloatModel],
        data: Stored[SteeringData],
        network: Network | None,
        wanted: Wanted,
    ) -> None:
        self.recipe = recipe
        self.runner = runner
        self.metrics = metrics
        self.base = base
        self.data = data
        self.network = network
        self.wanted = wanted
        self.forms: dict[str, Stored[FloatModel]] = {BASE: base}
        self.made: dict[str, Made] = {}
        self.notes: list[str] = []

    def make_forms(self) -> None:
        """The base is there; what the recipe asks for beside it needs the torch network."""
        if self.network is None:
            return
        for form in self.wanted.forms:
            self.forms[form.name] = self.runner.execute(stages.form(form, self.network, self.base, self.data))

    def baseline(self) -> Made:
        return self._float(BASE)

    def names_for(self, target: TargetSection, profile: Profile) -> list[str]:
        """The variants of one target in its profile's order of preference: by precision, by engine, by form, the base first.

        Raises MissingError when no engine of the target is installed.
        """
        engines = [engine for engine in profile.engines if not target.engines or engine in target.engines]
        usable = [engine for engine in engines if self._is_available(engine)]
        if not usable:
            raise MissingError(f"target {target.profile}: none of its engines ({', '.join(engines)}) is installed here")
        return [
            name
            for precision in profile.precisions
            for engine in usable
            for form in self._usable_forms(precision)
            for name in self._variants(form, engine, precision, profile.int8_weight_bits)
        ]

    def form_results(self) -> tuple[FormResult, ...]:
        """What became of every form, for the report."""
        return tuple(self._form_result(name, model) for name, model in self.forms.items())

    def _usable_forms(self, precision: Precision) -> Iterator[str]:
        """Forms worth a variant: not rejected, and below float32 only if their own float model is within the limit."""
        for name, model in self.forms.items():
            if model.value.rejected:
                continue
            if name == BASE or precision == "float32" or self._passes(self._float(name)):
                yield name

    def _variants(self, form: str, engine: str, precision: Precision, bits: int) -> Iterator[str]:
        if (engine, precision) == ("onnxruntime", "float32"):
            yield self._float(form).variant.value.name
        ladder = LADDERS.get(engine, ())
        for item in SCHEMES:
            if (item.engine, item.precision) != (engine, precision) or not self._is_wanted(item, ladder):
                continue
            if made := self._compress(form, item, bits):
                yield made.variant.value.name
        if precision == "int8" and "quantize" in self.recipe.compress.methods:
            yield from self._climb(form, [scheme(engine, name) for name in ladder], bits)

    def _is_wanted(self, item: Scheme, ladder: Sequence[str]) -> bool:
        """Whether it is tried in any case; rungs of a ladder are tried in their turn, unless the recipe names them."""
        if item in self.wanted.schemes:
            return True
        return item.name not in ladder and (item.method is None or item.method in self.recipe.compress.methods)

    def _climb(self, form: str, ladder: Sequence[Scheme], bits: int) -> Iterator[str]:
        """Rung by rung until one keeps within the metric's limit, or the recipe's number of trials is used up."""
        for rung in ladder[: self.recipe.compress.trials]:
            made = self._compress(form, rung, bits)
            if made is None:
                continue
            if rung not in self.wanted.schemes:  # those are candidates already
                yield made.variant.value.name
            if self._passes(made):
                return

    def _float(self, form: str) -> Made:
        model = self.forms[form]
        return self._check(model.part(model.value.variant, model.digest), model)

    def _compress(self, form: str, wanted: Scheme, bits: int) -> Made | None:
        """The checked variant, or None with a note where the scheme does not fit the model."""
        name, model = variant_name(form, wanted, bits), self.forms[form]
        if name in self.made:
            return self.made[name]
        ground = Ground(
            model=model, data=self.data, metric=self.metrics[0], settings=self.recipe.compress, weight_bits=bits,
            network=self.network if form == BASE else None,
        )  # fmt: skip
        if reason := self._unfit(wanted, ground):
            self._leave_out(form, wanted, name, reason)
            return None
        attempt = self.runner.execute(stages.compress(wanted, ground, name))
        if attempt.value.variant is None:
            self._leave_out(form, wanted, name, attempt.value.reason)
            return None
        return self._check(attempt.part(attempt.value.variant, attempt.digest), model)

    def _leave_out(self, form: str, wanted: Scheme, name: str, reason: str) -> None:
        """Said aloud, here and in the report. Raises StageError where the recipe asks for this very scheme of its own network."""
        if wanted in self.wanted.schemes and form == BASE:
            raise StageError(f"compress.schemes: {name} cannot be made: {reason}")
        self._note(f"{name} is left out: {reason}")

    def _unfit(self, wanted: Scheme, ground: Ground) -> str:
        if wanted.needs_network and ground.network is None:
            return "there is no torch network to train again"
        absent = [tool for tool in wanted.tools if tool_version(tool) == ABSENT]
        return f"{', '.join(absent)} is not installed" if absent else wanted.unfit(ground)

    def _check(self, variant: Stored[Variant], form: Stored[FloatModel]) -> Made:
        name = variant.value.name
        if name not in self.made:
            checked = self.runner.execute(stages.check(variant, form, self.base, self.data, self.metrics))
            self.made[name] = Made(variant=variant, checked=checked)
        return self.made[name]

    def _passes(self, made: Made) -> bool:
        return made.checked.value.parity.ok and made.checked.value.drop.value <= self.metrics[0].max_drop

    def _form_result(self, name: str, model: Stored[FloatModel]) -> FormResult:
        metric = self._float(name).checked.value.metrics[0].value
        within = self._passes(self._float(name))
        reason = model.value.rejected or ("" if within or name == BASE else "its float model misses the metric's limit")
        return FormResult(
            name=name, parameters=model.value.parameters, macs=model.value.macs, size_bytes=model.value.variant.size_bytes,
            metric=metric, control=model.value.control, kept=not reason, reason=reason,
        )  # fmt: skip

    def _is_available(self, engine: str) -> bool:
        if engine in _RUN_ANYWHERE and tool_version(engine) != ABSENT:
            return True
        availability = probe(engine)
        if not availability.ok:
            self._note(f"{engine} variants are left out: {availability.reason}")
        return availability.ok

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            self.runner.progress.note(text)


def probe(engine: str) -> "Availability":
    """Ask the backend itself: the engine may be there under another distribution's name. Loads NumPy, hence the last resort."""
    from runtime.backends.base import get_backend

    return get_backend(engine).probe()
