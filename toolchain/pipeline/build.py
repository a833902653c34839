"""From a recipe to finished packages: the order of the stages, and what each of them may see."""

from pathlib import Path

import msgspec

from runtime.contract.artifact import Lineage
from toolchain.benchmark.metrics import Metric, resolve_metrics
from toolchain.compress.base import Network
from toolchain.data.code import meaning_digest
from toolchain.data.load import load_data
from toolchain.data.source import DataSource
from toolchain.errors import LimitError, NetworkError
from toolchain.pipeline import stages
from toolchain.pipeline.candidates import BASELINE, Candidates, Made, probe, wanted_by
from toolchain.pipeline.choose import Candidate, Rules
from toolchain.pipeline.products import (
    BASE,
    FLOAT,
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
from toolchain.pipeline.record import FormResult, ProfileResult, TrainingResult, VariantResult
from toolchain.pipeline.stage import ABSENT, Runner, Stored, digest_of, tool_version
from toolchain.recipe import Recipe, TargetSection, in_graph_of
from toolchain.targets import Host, Profile, load_profile
from toolchain.train.network import ONNX, NetworkSource
from toolchain.train.stage import Training


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
    baseline: Made
    made: dict[str, Made]
    latencies: MeasuredModels | None
    choice: Stored[Choice]
    profiles: dict[str, ProfileResult] = {}

    @property
    def chosen(self) -> Stored[Variant]:
        return self.made[self.choice.value.chosen].variant

    def results(self) -> tuple[VariantResult, ...]:
        """Every variant with its figures and its verdict, in the order they were judged."""
        found = []
        for judgement in self.choice.value.judgements:
            variant, checked = self.made[judgement.name].variant, self.made[judgement.name].checked.value
            found.append(
                VariantResult(
                    name=judgement.name, form=variant.value.form, scheme=variant.value.scheme, engine=variant.value.engine,
                    precision=variant.value.precision, size_bytes=variant.value.size_bytes,
                    path=str(variant.folder / variant.value.model_file), metrics=checked.metrics, drop=checked.drop,
                    parity=checked.parity, latency=self.latencies.latencies.get(judgement.name) if self.latencies else None,
                    verdict=judgement.verdict, reason=judgement.reason, profile=self.profiles.get(judgement.name),
                )
            )  # fmt: skip
        return tuple(found)


class Steered(msgspec.Struct, frozen=True, kw_only=True):
    """A build up to its choices, from training and validation data alone: what a search may look at."""

    splits: Stored[DataSplits]
    trained: TrainedModel | None
    base: Stored[FloatModel]
    forms: tuple[FormResult, ...]
    targets: tuple[Tried, ...]


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """One target with its figures on the test split and its package."""

    tried: Tried
    tested: TestedModel
    package: Stored[Package]
    lineage: Lineage


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the stages of one build gave. build: digest of what was decided and from what."""

    build: str
    splits: DataSplits
    training: TrainingResult | None
    forms: tuple[FormResult, ...]
    targets: tuple[Finished, ...]
    notes: tuple[str, ...]


class NoneFitsError(LimitError):
    """No variant of a target passed. nearest: the one that came closest, not to be released."""

    def __init__(self, text: str, target: str, nearest: Stored[Variant], tried: Tried) -> None:
        super().__init__(text)
        self.target = target
        self.nearest = nearest
        self.tried = tried


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
        self.source = (
            None if recipe.model.network.startswith(ONNX) else NetworkSource(recipe.model, folder, in_graph=in_graph_of(recipe))
        )
        self.wanted = wanted_by(recipe)
        self._notes: list[str] = []

    def run(self) -> Outcome:
        """Run or reuse every stage. Nothing is packed, and the test split not opened, before every target has its choice."""
        return self.finish(self.steer())

    def steer(self) -> Steered:
        """Train, make every variant, measure and choose. Raises NoneFitsError where no variant keeps within the recipe's limits."""
        splits = load_data(self.runner, self.recipe, self.folder)
        data = splits.part(splits.value.steering, splits.value.steering.digest)
        trained, base = self._float_model(data)
        self._require_decodable(base.value.variant)
        network = None
        if self.source is not None and trained is not None:
            network = Network(
                recipe=self.recipe, folder=self.folder, source=self.source, trained=trained, metric=self.metrics[0]
            )  # fmt: skip
        candidates = Candidates(self.recipe, self.runner, self.metrics, base, data, network, self.wanted)
        candidates.make_forms()
        names = {target.profile: candidates.names_for(target, profile) for target, profile in self.profiles}
        self._notes += candidates.notes
        tried = tuple(self._try(target, profile, names[target.profile], candidates, data) for target, profile in self.profiles)
        return Steered(
            splits=splits, trained=trained.value if trained else None, base=base, forms=candidates.form_results(), targets=tried
        )

    def start(self) -> tuple[Stored[SteeringData], Stored[Variant]]:
        """The data that steers, and the float model alone: what other builds' models can be compared with."""
        splits = load_data(self.runner, self.recipe, self.folder)
        data = splits.part(splits.value.steering, splits.value.steering.digest)
        _, base = self._float_model(data)
        return data, base.part(base.value.variant, base.digest)

    def finish(self, steered: Steered) -> Outcome:
        """Open the test split, once, and pack."""
        decided = [[item.choice.digest, item.chosen.digest] for item in steered.targets]
        build = digest_of([self.recipe.sha256, steered.splits.digest, decided])
        return Outcome(
            build=build,
            splits=steered.splits.value,
            training=steered.trained.training if steered.trained else None,
            forms=steered.forms,
            targets=tuple(self._finish(item, steered, build) for item in steered.targets),
            notes=(*steered.splits.value.notes, *self._notes),
        )

    def _targets(self) -> list[TargetSection]:
        if not self.settings.targets:
            return list(self.recipe.targets)
        listed = {target.profile: target for target in self.recipe.targets}
        return [listed.get(name, TargetSection(profile=name)) for name in dict.fromkeys(self.settings.targets)]

    def _float_model(self, data: Stored[SteeringData]) -> tuple[Stored[TrainedModel] | None, Stored[FloatModel]]:
        if self.source is None:
            from toolchain.convert.start import onnx_file

            return None, self.runner.execute(stages.from_onnx(onnx_file(self.recipe.model, self.folder), data))
        training = Training(
            recipe=self.recipe, folder=self.folder, source=self.source, metric=self.metrics[0], data=data,
            partial=self.runner.cache.partial,
        )  # fmt: skip
        trained = self.runner.execute(training.stage())
        return trained, self.runner.execute(stages.to_onnx(self.source, trained, data))

    def _require_decodable(self, model: Variant) -> None:
        """A lone column of logits has no softmax; as a probability of class 1 it can be told. Raises NetworkError."""
        wide = model.outputs[0].shape[-1] != 1
        if self.recipe.model.output_kind == "classification" and self.recipe.model.scores == "logits" and not wide:
            raise NetworkError(
                'a classifier with one output column needs model.scores = "probabilities" (and a sigmoid), or one column a class'
            )

    def _try(
        self, target: TargetSection, profile: Profile, names: list[str], candidates: Candidates, data: Stored[SteeringData]
    ) -> Tried:
        """Measure where that counts, and choose."""
        made = {name: candidates.made[name] for name in names}
        latencies = self._measure(target, profile, {BASELINE: candidates.baseline(), **made}, data)
        judged = [self._candidate(name, profile, made[name], latencies) for name in names]
        rules = Rules(
            target=target.profile, metric=self.metrics[0].name, max_drop=self.metrics[0].max_drop,
            metric_limit=self.recipe.metrics[0].limit,
            max_latency_ms=target.max_latency_ms, max_size_kb=target.max_size_kb,
            allow_unmeasured=self.settings.allow_unmeasured,
        )  # fmt: skip
        measured = latencies is not None
        choice = self.runner.execute(stages.choose_variant(judged, BASELINE, rules, measured=measured))
        tried = Tried(
            target=target, profile=profile, measured=measured, baseline=candidates.baseline(), made=made, latencies=latencies,
            choice=choice,
        )  # fmt: skip
        if not choice.value.chosen:
            raise NoneFitsError(choice.value.reason, target.profile, made[choice.value.nearest].variant, tried)
        return tried

    def _measure(
        self, target: TargetSection, profile: Profile, made: dict[str, Made], data: Stored[SteeringData]
    ) -> MeasuredModels | None:
        """Latencies that count for the target: from the given evidence, or from this host where it is such a device."""
        if self.settings.evidence is not None:
            return self.runner.execute(stages.from_evidence(target.profile, self.settings.evidence, list(made))).value
        if not self.host.fits(profile):
            note = f"target {target.profile}: unmeasured, for this host ({self.host.arch}) is no such device"
            self._notes.append(note)
            self.runner.progress.note(note)
            return None
        variants = [item.variant for item in made.values()]
        stage = stages.measure(target.profile, variants, data, baseline=BASELINE, threads=profile.threads, host=self.host)
        return self.runner.execute(stage).value

    def _profile(self, tried: Tried, data: Stored[SteeringData]) -> dict[str, ProfileResult]:
        """Where time and memory go: of the baseline, the chosen one, and what int8 of the base was tried, to say why it lost."""
        if tried.latencies is None or self.settings.evidence is not None:
            return {}
        judged = [tried.made[item.name].variant for item in tried.choice.value.judgements]
        explained = [item for item in judged if item.value.form == BASE and item.value.precision == "int8"]
        wanted = (tried.baseline.variant, tried.chosen, *_in_float(explained, judged), *explained)
        variants = {item.value.name: item for item in wanted}
        stage = stages.profile(
            tried.target.profile, list(variants.values()), data, tried.latencies, threads=tried.profile.threads, host=self.host
        )  # fmt: skip
        return self.runner.execute(stage).value.profiles

    def _candidate(self, name: str, profile: Profile, made: Made, latencies: MeasuredModels | None) -> Candidate:
        variant = made.variant.value
        unlike = "" if self.settings.evidence else self.host.why_unlike(profile, variant.precision)
        latency = None if latencies is None or unlike else latencies.latencies[name]
        return Candidate(
            name=name, checked=made.checked.value, size_bytes=variant.size_bytes, latency=latency, unlike=unlike
        )  # fmt: skip

    def _finish(self, tried: Tried, steered: Steered, build: str) -> Finished:
        """The figures on the test split, then the package."""
        from toolchain.package.pack import FALLBACK_ENGINE, Contents, Proof, may_fall_back, pack

        splits, base = steered.splits, steered.base
        data = splits.part(splits.value.steering, splits.value.steering.digest)
        tried = msgspec.structs.replace(tried, profiles=self._profile(tried, data))
        held_out = splits.part(splits.value.held_out, splits.value.held_out.digest)
        classes = splits.value.steering.classes
        start = base.part(base.value.variant, base.digest)
        tested = self.runner.execute(
            stages.test(tried.target.profile, tried.chosen, start, held_out, classes, self.metrics)
        )  # fmt: skip
        contents = Contents(
            recipe=self.recipe, target=tried.target, profile=tried.profile, splits=splits, model=base, variant=tried.chosen,
            tested=tested.value, choice=tried.choice.value, lineage=self._lineage(steered),
            engine_version=_engine_version(tried.chosen.value.engine),
            fallback_version=(
                _engine_version(FALLBACK_ENGINE) if may_fall_back(tried.chosen.value, tried.profile, tried.target) else ""
            ),
        )  # fmt: skip
        host = self.host.describe() | (tried.latencies.conditions if tried.latencies else {})
        proof = Proof(
            measured=tried.measured, variants=tried.results(), host=host, notes=tuple(self._notes), build=build,
            seconds=sum(run.seconds for run in self.runner.runs),
        )  # fmt: skip
        inputs = {
            "chosen variant": tried.chosen.digest, "float model": base.digest, "data": splits.digest, "choice": tried.choice.digest,
            "figures on test data": tested.digest, "lineage": digest_of(msgspec.to_builtins(contents.lineage)),
            "variants": digest_of([msgspec.structs.replace(item, path="", profile=None) for item in proof.variants]),
        }  # fmt: skip
        stage = stages.pack(contents, proof, inputs, make=pack)
        return Finished(tried=tried, tested=tested.value, package=self.runner.execute(stage), lineage=contents.lineage)

    def _lineage(self, steered: Steered) -> Lineage:
        splits = steered.splits.value
        source = DataSource(self.recipe.data.source, self.recipe.data.options, self.folder, self.runner.cache)
        code = {"data": meaning_digest(source.closure), "network": self.source.code if self.source else ""}
        training = steered.trained.training if steered.trained else None
        return Lineage(
            recipe=self.recipe.sha256, data=splits.fingerprint, code=digest_of(code),
            lock=digest_of(dict(sorted(self.runner.environment.items()))),
            seeds=(self.recipe.train.seed,) if self.recipe.train else (), conditions=training.conditions if training else (),
        )  # fmt: skip


def _in_float(explained: list[Stored[Variant]], judged: list[Stored[Variant]]) -> list[Stored[Variant]]:
    """The float variants of the same engines, which the others are explained by."""
    engines = {item.value.engine for item in explained}
    return [item for item in judged if (item.value.form, item.value.scheme) == (BASE, FLOAT) and item.value.engine in engines]


def _engine_version(engine: str) -> str:
    version = tool_version(engine)
    return version if version != ABSENT else probe(engine).version
