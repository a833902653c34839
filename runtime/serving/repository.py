"""Which models serve now, and how does one version take another's place under load?

A switch is one assignment: a request runs on the old version or the new one, never on neither. The old engine closes when
the inference under way in it ends; what still waits for it goes to the new version.
"""

import threading
from pathlib import Path

import numpy as np

from runtime.backends.base import LoadedModel, Tensors, get_backend
from runtime.backends.datatypes import NUMPY_TYPES
from runtime.contract.artifact import MANIFEST_NAME, REFERENCE_NAME, ArtifactRef, Manifest, TensorSpec, read_manifest
from runtime.contract.canonical import MANIFEST_LIMIT
from runtime.contract.deployment import Role
from runtime.contract.errors import DigestError
from runtime.contract.telemetry import read_reference
from runtime.errors import ModelLoadError, ModelNotFoundError, RequestError, RetiredError
from runtime.monitor.monitor import Monitor, MonitorLimits
from runtime.processing import check_steps
from runtime.serving.model import ServedModel
from runtime.update.verify import check_file


def open_artifact(directory: Path, role: Role = "active", limits: MonitorLimits | None = None) -> ServedModel:
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
    check_steps((*manifest.processing.pre, *manifest.processing.post))
    edge_set = None
    if manifest.file(REFERENCE_NAME) is not None:
        edge_set = read_reference((directory / REFERENCE_NAME).read_bytes())[1]
    monitor = Monitor(manifest, edge_set, limits or MonitorLimits())
    model = get_backend(manifest.requires.engine).load(directory / manifest.model_file, manifest.engine_options)
    try:
        _require_same_tensors(manifest, model)
        artifact = ArtifactRef(version=manifest.version, target=manifest.requires.profile, sha256=received.sha256)
        served = ServedModel(manifest, artifact, model, monitor, role)
        served.warm_up()
    except BaseException:
        model.close()
        raise
    return served


class Repository:
    """The models that serve, by name. Thread-safe; readers never wait for a switch."""

    def __init__(self, limits: MonitorLimits | None = None) -> None:
        self._limits = limits
        self._served: dict[str, ServedModel] = {}
        self._changing = threading.Lock()

    def open(self, directory: Path, role: Role = "active") -> ServedModel:
        """Load an artifact without serving it yet; see `open_artifact` for what is checked and raised."""
        return open_artifact(directory, role, self._limits)

    def switch(self, served: ServedModel) -> ServedModel | None:
        """Serve this version from the next request on. Returns the one it replaced, retired; its monitor can still be read."""
        with self._changing:
            name = served.manifest.model
            previous = self._served.get(name)
            self._served = {**self._served, name: served}
        if previous is not None and previous is not served:
            previous.retire()
            return previous
        return None

    def retire(self, model: str) -> ServedModel | None:
        """Serve this model no more. Returns what served, or None for an unknown one, which is no error."""
        with self._changing:
            remaining = dict(self._served)
            previous = remaining.pop(model, None)
            self._served = remaining
        if previous is not None:
            previous.retire()
        return previous

    def infer(self, model: str, inputs: Tensors, version: str = "") -> tuple[ServedModel, dict[str, np.ndarray]]:
        """Run one request on what serves now; also says which version that was.

        version: "" for any. Raises ModelNotFoundError, RequestError for tensors that do not fit, InferenceError.
        """
        while True:
            served = self._served.get(model)
            if served is None or version:
                served = self.get(model, version)
            served.check(inputs)
            try:
                return served, served.infer(inputs)
            except RetiredError:
                if self._served.get(model) is served:
                    raise  # nobody switched: it was retired behind the repository's back
                # Otherwise the next look finds its successor, or nothing.

    def get(self, model: str, version: str = "") -> ServedModel:
        """What serves now. Raises ModelNotFoundError, also for another version than the one asked for."""
        served = self._served.get(model)
        if served is None:
            raise ModelNotFoundError(f"unknown model {model!r}; serving: {', '.join(sorted(self._served)) or 'none'}")
        if version and served.manifest.version != version:
            raise ModelNotFoundError(f"{model} serves version {served.manifest.version}, not {version}")
        return served

    def only(self) -> str:
        """The name of the model that serves, where it is the only one. Raises RequestError otherwise."""
        if len(self._served) != 1:
            raise RequestError(f"{len(self._served)} models are open: name the one to run")
        return next(iter(self._served))

    def models(self) -> tuple[ServedModel, ...]:
        return tuple(served for _, served in sorted(self._served.items()))

    def artifact(self, model: str) -> ArtifactRef | None:
        """What serves now."""
        served = self._served.get(model)
        return served.artifact if served else None

    def counts(self, model: str) -> tuple[int, int]:
        """Requests and errors of the version that serves now, since it was opened."""
        served = self._served.get(model)
        if served is None:
            return 0, 0
        totals = served.monitor.totals()
        return totals.requests, totals.errors

    def close(self) -> None:
        for served in self.models():
            self.retire(served.manifest.model)


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
