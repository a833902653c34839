"""Which models serve now, in which role, and how does one version take another's place under load?

A model has up to one version per role: `active` answers, `split` answers a share, `shadow` runs on a sampled share and
answers nobody. A switch is one assignment: a request runs on the old version or the new one, never on neither. The old
engine closes when the inference under way in it ends; what still waits for it goes to the new version. While a new version
is on trial in a process of its own, the one it replaced stands by: should that process crash or hang, the request that met
it is answered by the old version, and so is every one after it.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from runtime.backends.base import LoadedModel, Tensors
from runtime.backends.datatypes import NUMPY_TYPES
from runtime.backends.fallback import Opened, open_engine
from runtime.contract.artifact import MANIFEST_NAME, REFERENCE_NAME, ArtifactRef, Manifest, TensorSpec, read_manifest
from runtime.contract.canonical import MANIFEST_LIMIT
from runtime.contract.deployment import SHARE_WHOLE, Role
from runtime.contract.errors import DigestError
from runtime.contract.telemetry import read_reference
from runtime.errors import (
    EngineCrashedError,
    EngineHungError,
    ModelLoadError,
    ModelNotFoundError,
    RequestError,
    RetiredError,
)
from runtime.monitor.monitor import Monitor, MonitorLimits
from runtime.processing.catalogue import check_manifest
from runtime.serving.models.health import Health
from runtime.serving.models.model import ServedModel
from runtime.serving.models.shadow import Shadow, ShadowSettings, at_lowest_priority, monitor_limits
from runtime.serving.models.split import holds_key, turns
from runtime.update.verify import check_file

Loader = Callable[[Manifest, Path], Opened]
"""Opens a manifest's model in a directory whose files have been checked; usually `open_engine`. Raises EngineError."""
Place = tuple[str, Role]
"""A model's name and one of its roles."""
_UNABLE = (RetiredError, EngineCrashedError, EngineHungError)


class _Parting(NamedTuple):
    """A split and whose turn it is."""

    split: ServedModel
    turns: Iterator[bool]


def open_artifact(
    directory: Path,
    role: Role = "active",
    limits: MonitorLimits | None = None,
    *,
    share: int = SHARE_WHOLE,
    load: Loader = open_engine,
) -> ServedModel:
    """Check an artifact directory against its manifest, file by file, load its model and run it once.

    The manifest itself is taken as it is: who must know that it is the one asked for compares `artifact.sha256`.
    Raises DigestError for a missing or altered file, another ContractError for an unreadable manifest or reference, and
    EngineError when the engine or a processing step is not to be had or the model is not what the manifest says.
    """
    try:
        with (directory / MANIFEST_NAME).open("rb") as file:
            received = read_manifest(file.read(MANIFEST_LIMIT + 1))
    except OSError as error:
        raise DigestError(f"{MANIFEST_NAME} cannot be read: {error.strerror}") from error
    manifest = received.value
    for entry in manifest.files:
        check_file(directory / entry.name, entry.sha256, entry.size_bytes)
    check_manifest(manifest)
    edge_set = None
    if manifest.file(REFERENCE_NAME) is not None:
        edge_set = read_reference((directory / REFERENCE_NAME).read_bytes())[1]
    monitor = Monitor(manifest, edge_set, limits or MonitorLimits())
    opened = load(manifest, directory)
    try:
        _require_same_tensors(manifest, opened.model)
        artifact = ArtifactRef(version=manifest.version, target=manifest.requires.profile, sha256=received.sha256)
        served = ServedModel(
            manifest, artifact, opened.model, monitor, role, share=share, engine=opened.engine, is_apart=opened.is_apart
        )
        served.warm_up()
    except BaseException:
        opened.model.close()
        raise
    return served


class Repository:
    """The models that serve, by name and role. Thread-safe; readers never wait for a switch."""

    def __init__(
        self,
        limits: MonitorLimits | None = None,
        *,
        load: Loader = open_engine,
        load_trial: Loader | None = None,
        shadow: ShadowSettings = ShadowSettings(),  # noqa: B008 - frozen
    ) -> None:
        """load: how models are opened; load_trial: how those are that are not committed yet, None for no other way."""
        self._limits = limits
        self._load = load
        self._load_trial = load_trial or load
        self._shadow_settings = shadow
        self._active: dict[str, ServedModel] = {}
        self._unsplit: dict[str, ServedModel] = {}
        """The active versions of models without a split: the usual request needs no more than this."""
        self._partings: dict[str, _Parting] = {}
        self._shadows: dict[Place, Shadow] = {}
        self._by_place: dict[Place, ServedModel] = {}
        self._standing_by: dict[Place, ServedModel] = {}
        """What a version on trial replaced, still open."""
        self._broken: dict[Place, Health] = {}
        """How a version fared whose place had to be given back."""
        self.fell_back: Callable[[ServedModel, ServedModel], None] = lambda _broken, _now: None
        """Told of a broken version and of the one that serves again."""
        self._changing = threading.Lock()

    def open(self, directory: Path, role: Role = "active", share: int = SHARE_WHOLE, *, trial: bool = False) -> ServedModel:
        """Load an artifact without serving it yet; see `open_artifact` for what is checked and raised.

        share: of the traffic a split answers or a shadow sees, out of SHARE_WHOLE. trial: it is not committed, and runs
        where `load_trial` puts it until `settle`.
        """
        is_apart = trial and self._load_trial is not self._load
        load = self._load_trial if is_apart else self._load
        if role == "shadow":  # the threads an engine starts inherit the priority of the one it is opened in
            served = at_lowest_priority(
                lambda: open_artifact(directory, role, monitor_limits(self._limits), share=share, load=load)
            )
        else:
            served = open_artifact(directory, role, self._limits, share=share, load=load)
        served.trial_directory = directory if is_apart else None
        return served

    def switch(self, served: ServedModel) -> ServedModel | None:
        """Serve this version in its role from the next request on.

        Returns the one it replaced there, retired or standing by; its monitor can still be read.
        """
        place = (served.manifest.model, served.role)
        with self._changing:
            previous = self._by_place.get(place)
            leaving = [self._standing_by.pop(place, None)]
            self._broken.pop(place, None)
            self._arrange({**self._by_place, place: served})
            if previous is None or previous is served:
                previous = None
            elif served.trial_directory is not None and previous.trial_directory is None and not previous.failure:
                self._standing_by[place] = previous
            else:
                leaving.append(previous)
        for one in leaving:
            if one is not None:
                one.retire()
        return previous

    def retire(self, model: str, role: Role = "active") -> ServedModel | None:
        """Serve this model no more in this role. Returns what served, or None for an unknown one, which is no error."""
        with self._changing:
            remaining = dict(self._by_place)
            previous = remaining.pop((model, role), None)
            self._arrange(remaining)
        self._stand_down((model, role))
        if previous is not None:
            previous.retire()
        return previous

    def settle(self, model: str, role: Role = "active") -> None:
        """A version is committed: if it runs where trials run, open it where the others do. Counts go on.

        Blocks while it loads and for the inference under way; the version serves meanwhile. Raises EngineError when it
        cannot be opened there: it then goes on where it is.
        """
        served = self._by_place.get((model, role))
        if served is None or served.trial_directory is None:
            return
        self._stand_down((model, role))  # its memory is what the new one may need
        served.replace_engine(self._load(served.manifest, served.trial_directory))
        served.trial_directory = None

    def infer(self, model: str, inputs: Tensors, version: str = "", key: str = "") -> tuple[ServedModel, dict[str, np.ndarray]]:
        """Run one request on what serves now; also says which version that was.

        version: "" for any; key: what a split goes by, see `pick`. Raises ModelNotFoundError, RequestError for tensors that
        do not fit, InferenceError.
        """
        served = self._unsplit.get(model)
        if served is None or version:
            return self.run(self.pick(model, version, key), inputs, version)
        # As `run`, written out: a call more is half a percent of a 16 us model.
        rows = served.check(inputs)
        try:
            outputs = served.infer(inputs, rows)
        except _UNABLE as error:
            return self.run(self._instead(served, error, version), inputs, version)
        if served.mirror is not None:
            served.mirror(served, inputs, outputs, rows)
        return served, outputs

    def pick(self, model: str, version: str = "", key: str = "") -> ServedModel:
        """What answers a request: the active version, or the split for its share; a version asked for by name, either.

        key: the same one always goes the same way; without one requests take turns. Raises ModelNotFoundError.
        """
        served = self._unsplit.get(model)
        if served is not None and not version:
            return served
        served = self.get(model, version)
        parting = self._partings.get(model)
        if parting is None or version:
            return served
        in_share = holds_key(model, key, parting.split.share) if key else next(parting.turns)
        return parting.split if in_share else served

    def run(self, served: ServedModel, inputs: Tensors, version: str = "") -> tuple[ServedModel, dict[str, np.ndarray]]:
        """Run one request on what `pick` chose, or on what has taken its place since. version: as given to `pick`."""
        while True:
            rows = served.check(inputs)
            try:
                outputs = served.infer(inputs, rows)
            except _UNABLE as error:
                served = self._instead(served, error, version)
                continue
            if served.mirror is not None:
                served.mirror(served, inputs, outputs, rows)
            return served, outputs

    def get(self, model: str, version: str = "") -> ServedModel:
        """The active version, or the one asked for if it answers requests. Raises ModelNotFoundError.

        A split without an active version beside it answers only who asks for it by name.
        """
        served = self._active.get(model)
        split = self._by_place.get((model, "split")) if version else None
        for one in (served, split):
            if one is not None and version in ("", one.manifest.version):
                return one
        if served is None:
            raise ModelNotFoundError(f"unknown model {model!r}; serving: {', '.join(sorted(self._active)) or 'none'}")
        versions = " and ".join(one.manifest.version for one in (served, split) if one is not None)
        raise ModelNotFoundError(f"{model} serves version {versions}, not {version}")

    def only(self) -> str:
        """The name of the model that serves, where it is the only one. Raises RequestError otherwise."""
        if len(self._active) != 1:
            raise RequestError(f"{len(self._active)} models are open: name the one to run")
        return next(iter(self._active))

    def models(self) -> tuple[ServedModel, ...]:
        """Everything that serves, whatever its role; of one model the active version comes first."""
        return tuple(served for _, served in sorted(self._by_place.items(), key=lambda item: item[0]))

    def artifact(self, model: str, role: Role = "active") -> ArtifactRef | None:
        """What serves now."""
        served = self._by_place.get((model, role))
        return served.artifact if served else None

    def health(self, model: str, role: Role = "active") -> Health:
        """How the version switched to last has fared since it was opened; all zero when there is none."""
        served = self._by_place.get((model, role))
        if (broken := self._broken.get((model, role))) is not None:
            return broken
        return served.health() if served else Health()

    def shadows(self) -> tuple[Shadow, ...]:
        """What runs beside the active versions now."""
        return tuple(shadow for _, shadow in sorted(self._shadows.items(), key=lambda item: item[0]))

    def stuck_s(self) -> float:
        """For how long the oldest inference under way has been in its engine; 0.0 when there is none."""
        return max((served.stuck_s() for served in self._by_place.values()), default=0.0)

    def close(self) -> None:
        for model, role in tuple(self._by_place):
            self.retire(model, role)

    def _fall_back(self, broken: ServedModel) -> bool:
        """Let what stands by serve instead. False when nothing does."""
        place = (broken.manifest.model, broken.role)
        with self._changing:
            if self._by_place.get(place) is not broken:
                return place in self._by_place
            previous = self._standing_by.pop(place, None)
            if previous is None:
                return False
            self._broken[place] = broken.health()
            self._arrange({**self._by_place, place: previous})
        broken.retire()
        self.fell_back(broken, previous)
        return True

    def _stand_down(self, place: Place) -> None:
        with self._changing:
            previous = self._standing_by.pop(place, None)
            self._broken.pop(place, None)
        if previous is not None:
            previous.retire()

    def _instead(self, unable: ServedModel, error: Exception, version: str) -> ServedModel:
        """What answers a request in place of a version that was retired or broke under it; raises `error` if nothing does."""
        model = unable.manifest.model
        # An inference changes nothing outside itself, so one that met a crash may be run again.
        if not isinstance(error, RetiredError) and (not self._fall_back(unable) or version):
            raise error
        served = None if version else self._by_place.get((model, unable.role))
        if served is None:  # a split ended, or a version was asked for by name
            served = self.get(model, version)
        if served is unable:  # nobody switched: it was retired behind the repository's back
            raise error
        return served

    def _arrange(self, by_place: dict[Place, ServedModel]) -> None:
        """Take over a new set of versions. The caller holds `_changing`."""
        for place, shadow in tuple(self._shadows.items()):
            if by_place.get(place) is not shadow.served:
                del self._shadows[place]
                shadow.close()
        for place, served in by_place.items():
            if served.role == "shadow" and place not in self._shadows:
                shadow = self._shadows[place] = Shadow(served, self._shadow_settings)
                served.agreement = shadow.take
                shadow.start()
        self._by_place = by_place
        splits = {model: served for (model, role), served in by_place.items() if role == "split"}
        kept = self._partings
        self._partings = {
            model: kept[model] if model in kept and kept[model].split is split else _Parting(split, turns(split.share))
            for model, split in splits.items()
        }
        self._active = {model: served for (model, role), served in by_place.items() if role == "active"}
        self._unsplit = {model: served for model, served in self._active.items() if model not in splits}
        for model, served in self._active.items():
            mirror = self._shadows.get((model, "shadow"))
            served.mirror = mirror.offer if mirror is not None else None


def _require_same_tensors(manifest: Manifest, model: LoadedModel) -> None:
    """The manifest may say more than the engine (ranges, layouts, fixed sizes), never something else."""
    for kind, declared, found in (("input", manifest.inputs, model.inputs), ("output", manifest.outputs, model.outputs)):
        by_name = {spec.name: spec for spec in found}
        if {spec.name for spec in declared} != set(by_name):
            raise ModelLoadError(f"the model has {kind}s {sorted(by_name)}, the manifest says {[spec.name for spec in declared]}")
        for spec in declared:
            if not _agree(spec, by_name[spec.name]):
                raise ModelLoadError(
                    f"{kind} {spec.name!r} is {_describe(by_name[spec.name])} in the model, {_describe(spec)} in the manifest"
                )


def _agree(declared: TensorSpec, found: TensorSpec) -> bool:
    if declared.datatype != found.datatype or declared.datatype not in NUMPY_TYPES or len(declared.shape) != len(found.shape):
        return False
    return all(-1 in (ours, theirs) or ours == theirs for ours, theirs in zip(declared.shape, found.shape, strict=True))


def _describe(spec: TensorSpec) -> str:
    return f"{spec.datatype}{list(spec.shape)}"
