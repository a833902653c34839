"""From a recipe to finished packages: the order of the stages, and what each of them may see."""

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runtime.contract.artifact import Lineage
from toolchain.benchmark.metrics import Metric, resolve_metrics
from toolchain.data.code import meaning_digest
from toolchain.data.load import load_data
from toolchain.data.source import DataSource
from toolchain.errors import MissingError, NetworkError
from toolchain.pipeline import stages
from toolchain.pipeline.choose import Candidate, Rules
from toolchain.pipeline.products import (
    CheckedModel,
    Choice,
    DataSplits,
    FloatModel,
    MeasuredModels,
    Package,
    SteeringData,
    TestedModel,
    TrainedModel,
    Variant,
)
from toolchain.pipeline.record import VariantResult
from toolchain.pipeline.stage import ABSENT, Runner, Stored, digest_of, tool_version
from toolchain.recipe import Recipe, TargetSection
from toolchain.targets import Host, Profile, load_profile
from toolchain.train.network import ONNX, NetworkSource
from toolchain.train.stage import Training

if TYPE_CHECKING:
    from runtime.backends.base import Availability

BASELINE = "onnxruntime-float32"
"""What every variant's latency is compared with: the float model in the engine that is always there."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line adds to a recipe. targets: profiles to build for, all of the recipe's when empty."""

    targets: tuple[str, ...] = ()
    evidence: Path | None = None
    allow_unmeasured: bool = False


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known about one target once its variant is chosen. The test split has played no part in it."""

    target: TargetSection
    profile: Profile
    measured: bool
    variants: dict[str, Stored[Variant]]
    checked: dict[str, Stored[CheckedModel]]
    latencies: MeasuredModels | None
    choice: Stored[Choice]

    @property
    def chosen(self) -> Stored[Variant]:
        return self.variants[self.choice.value.chosen]

    def results(self) -> tuple[VariantResult, ...]:
        """Every variant with its figures and its verdict, in the order they were judged."""
        return tuple(
            VariantResult(
                name=judgement.name,
                engine=self.variants[judgement.name].value.engine,
                precision=self.variants[judgement.name].value.precision,
                size_bytes=self.variants[judgement.name].value.size_bytes,
                path=str(self.variants[judgement.name].folder / self.variants[judgement.name].value.model_file),
                metrics=self.checked[judgement.name].value.metrics,
                parity=self.checked[judgement.name].value.parity,
                latency=self.latencies.latencies.get(judgement.name) if self.latencies else None,
                verdict=judgement.verdict,
                reason=judgement.reason,
            )
            for judgement in self.choice.value.judgements
        )


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """One target with its figures on the test split and its package."""

    tried: Tried
    tested: TestedModel
    package: Stored[Package]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the stages of one build gave. build: digest of what was decided and from what."""

    build: str
    splits: DataSplits
    trained: TrainedModel | None
    targets: tuple[Finished, ...]
    notes: tuple[str, ...]


class Build:
    """One build of one recipe on one host. folder: where the recipe lies."""

    def __init__(self, recipe: Recipe, folder: Path, settings: Settings, runner: Runner, host: Host) -> None:
        self.recipe = recipe
        self.folder = folder
        self.settings = settings
        self.runner = runner
        self.host = host
        self.metrics: tuple[Metric, ...] = resolve_metrics(recipe, folder)
        self.profiles = [(target, load_profile(target.profile, folder)) for target in self._targets()]
        self.source = None if recipe.model.network.startswith(ONNX) else NetworkSource(recipe.model, folder)
        self._notes: list[str] = []

    def run(self) -> Outcome:
        """Run or reuse every stage. Nothing is packed, and the test split not opened, before every target has its choice."""
        splits = load_data(self.runner, self.recipe, self.folder)
        data = splits.part(splits.value.steering, splits.value.steering.digest)
        trained, model = self._float_model(data)
        self._require_decodable(model.value.variant)
        variants = self._variants(model, data)
        checked = {name: self.runner.execute(stages.check(item, model, data, self.metrics)) for name, item in variants.items()}
        tried = [self._try(target, profile, variants, checked, data) for target, profile in self.profiles]
        build = digest_of([self.recipe.sha256, splits.digest, [[item.choice.digest, item.chosen.digest] for item in tried]])
        return Outcome(
            build=build,
            splits=splits.value,
            trained=trained,
            targets=tuple(self._finish(item, splits, model, build) for item in tried),
            notes=(*splits.value.notes, *self._notes),
        )

    def _targets(self) -> list[TargetSection]:
        if not self.settings.targets:
            return list(self.recipe.targets)
        listed = {target.profile: target for target in self.recipe.targets}
        return [listed.get(name, TargetSection(profile=name)) for name in dict.fromkeys(self.settings.targets)]

    def _float_model(self, data: Stored[SteeringData]) -> tuple[TrainedModel | None, Stored[FloatModel]]:
        if self.source is None:
            from toolchain.convert.start import onnx_file

            return None, self.runner.execute(stages.from_onnx(onnx_file(self.recipe.model, self.folder), data))
        training = Training(recipe=self.recipe, folder=self.folder, source=self.source, metric=self.metrics[0], data=data)
        trained = self.runner.execute(training.stage())
        return trained.value, self.runner.execute(stages.to_onnx(self.source, trained, data))

    def _require_decodable(self, model: Variant) -> None:
        """A lone column of logits has no softmax; as a probability of class 1 it can be told. Raises NetworkError."""
        wide = model.outputs[0].shape[-1] != 1
        if self.recipe.model.output_kind == "classification" and self.recipe.model.scores == "logits" and not wide:
            raise NetworkError(
                'a classifier with one output column needs model.scores = "probabilities" (and a sigmoid), or one column a class'
            )

    def _variants(self, model: Stored[FloatModel], data: Stored[SteeringData]) -> dict[str, Stored[Variant]]:
        """Every variant that any of the targets asks for, by name."""
        wanted = {name for target, profile in self.profiles for name in self._wanted(target, profile)}
        found = {BASELINE: model.part(model.value.variant, model.digest)}
        if "openvino-float32" in wanted:
            found["openvino-float32"] = self.runner.execute(stages.to_openvino(model))
        for weight_bits in (8, 7):
            name = stages.int8_name(weight_bits)
            if name in wanted:
                rows = self.recipe.compress.calibration_rows
                found[name] = self.runner.execute(stages.quantize_onnxruntime(model, data, rows, weight_bits))
        return found

    def _wanted(self, target: TargetSection, profile: Profile) -> list[str]:
        """Names of the variants of one target in its profile's order: by precision, then by engine."""
        names = []
        for precision in profile.precisions:
            for engine in profile.engines:
                if target.engines and engine not in target.engines:
                    continue
                if not self._is_available(engine):
                    continue
                if precision == "float32":
                    names.append(f"{engine}-float32")
                elif engine == "onnxruntime" and "quantize" in self.recipe.compress.methods:
                    names.append(stages.int8_name(profile.int8_weight_bits))
        if not names:
            raise MissingError(f"target {target.profile}: none of its engines ({', '.join(profile.engines)}) is installed here")
        return names

    def _is_available(self, engine: str) -> bool:
        if tool_version(engine) != ABSENT:
            return True
        availability = _probe(engine)
        note = f"{engine} variants are left out: {availability.reason}"
        if not availability.ok and note not in self._notes:
            self._notes.append(note)
            self.runner.progress.note(note)
        return availability.ok

    def _try(
        self,
        target: TargetSection,
        profile: Profile,
        variants: dict[str, Stored[Variant]],
        checked: dict[str, Stored[CheckedModel]],
        data: Stored[SteeringData],
    ) -> Tried:
        """Measure where that counts, and choose."""
        names = self._wanted(target, profile)
        own = {name: variants[name] for name in names}
        latencies = self._measure(target, profile, own, data)
        candidates = [self._candidate(name, profile, variants[name], checked[name], latencies) for name in names]
        rules = Rules(
            target=target.profile, metric=self.metrics[0].name, max_drop=self.metrics[0].max_drop,
            max_latency_ms=target.max_latency_ms, allow_unmeasured=self.settings.allow_unmeasured,
        )  # fmt: skip
        measured = latencies is not None
        choice = self.runner.execute(stages.choose_variant(candidates, BASELINE, rules, measured=measured))
        return Tried(
            target=target, profile=profile, measured=measured, variants=own, checked={name: checked[name] for name in names},
            latencies=latencies, choice=choice,
        )  # fmt: skip

    def _measure(
        self, target: TargetSection, profile: Profile, variants: dict[str, Stored[Variant]], data: Stored[SteeringData]
    ) -> MeasuredModels | None:
        """Latencies that count for the target: from the given evidence, or from this host where it is such a device."""
        if self.settings.evidence is not None:
            return self.runner.execute(stages.from_evidence(target.profile, self.settings.evidence, list(variants))).value
        if not self.host.fits(profile):
            note = f"target {target.profile}: unmeasured, for this host ({self.host.arch}) is no such device"
            self._notes.append(note)
            self.runner.progress.note(note)
            return None
        stage = stages.measure(
            target.profile, list(variants.values()), data, baseline=BASELINE, threads=profile.threads, host=self.host
        )  # fmt: skip
        return self.runner.execute(stage).value

    def _candidate(
        self,
        name: str,
        profile: Profile,
        variant: Stored[Variant],
        checked: Stored[CheckedModel],
        latencies: MeasuredModels | None,
    ) -> Candidate:
        unlike = "" if self.settings.evidence else self.host.why_unlike(profile, variant.value.precision)
        latency = None if latencies is None or unlike else latencies.latencies[name]
        return Candidate(name=name, checked=checked.value, latency=latency, unlike=unlike)

    def _finish(self, tried: Tried, splits: Stored[DataSplits], model: Stored[FloatModel], build: str) -> Finished:
        """The figures on the test split, then the package."""
        from toolchain.package.pack import Contents, Proof, pack

        held_out = splits.part(splits.value.held_out, splits.value.held_out.digest)
        classes = splits.value.steering.classes
        tested = self.runner.execute(stages.test(tried.target.profile, tried.chosen, held_out, classes, self.metrics))
        contents = Contents(
            recipe=self.recipe, target=tried.target, profile=tried.profile, splits=splits, model=model, variant=tried.chosen,
            tested=tested.value, choice=tried.choice.value, lineage=self._lineage(splits.value),
            engine_version=_engine_version(tried.chosen.value.engine),
        )  # fmt: skip
        host = self.host.describe() | (tried.latencies.conditions if tried.latencies else {})
        proof = Proof(
            measured=tried.measured, variants=tried.results(), host=host, notes=tuple(self._notes), build=build,
            seconds=sum(run.seconds for run in self.runner.runs),
        )  # fmt: skip
        inputs = {
            "chosen variant": tried.chosen.digest, "float model": model.digest, "data": splits.digest, "choice": tried.choice.digest,
            "figures on test data": tested.digest, "lineage": digest_of(msgspec.to_builtins(contents.lineage)),
            "variants": digest_of([msgspec.structs.replace(item, path="") for item in proof.variants]),
        }  # fmt: skip
        stage = stages.pack(contents, proof, inputs, make=pack)
        return Finished(tried=tried, tested=tested.value, package=self.runner.execute(stage))

    def _lineage(self, splits: DataSplits) -> Lineage:
        source = DataSource(self.recipe.data.source, self.recipe.data.options, self.folder, self.runner.cache)
        code = {"data": meaning_digest(source.closure), "network": self.source.code if self.source else ""}
        return Lineage(
            recipe=self.recipe.sha256, data=splits.fingerprint, code=digest_of(code),
            lock=digest_of(dict(sorted(self.runner.environment.items()))),
            seeds=(self.recipe.train.seed,) if self.recipe.train else (),
        )  # fmt: skip


def _engine_version(engine: str) -> str:
    version = tool_version(engine)
    return version if version != ABSENT else _probe(engine).version


def _probe(engine: str) -> "Availability":
    """Ask the backend itself: the engine may be there under another distribution's name. Loads NumPy, hence the last resort."""
    from runtime.backends.base import get_backend

    return get_backend(engine).probe()
