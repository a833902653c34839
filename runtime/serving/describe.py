"""What does the server say of itself and its models, in the words of the Open Inference Protocol and of Triton?

Sources: the protocol's metadata documents; Triton's model_config.proto for the configuration, and its
extension_model_repository.md for the index. HTTP sends these as JSON, gRPC as messages of the same fields.
"""

from importlib.metadata import version
from typing import Any

from runtime.contract.artifact import TensorSpec
from runtime.errors import ModelNotFoundError
from runtime.serving.batching import has_free_batch
from runtime.serving.inference import Joining
from runtime.serving.models.model import ServedModel
from runtime.serving.models.repository import Repository

SERVER_NAME = "edgewright"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "statistics",
    "system_shared_memory",
)
UNJOINED = Joining()
_CONFIG_TYPES = {"BYTES": "TYPE_STRING"}


def server_metadata() -> dict[str, Any]:
    return {"name": SERVER_NAME, "version": version(SERVER_NAME), "extensions": list(EXTENSIONS)}


def find(repository: Repository, model: str, release: str = "") -> ServedModel:
    """The version of a model that is meant: the active one, or in whatever role the one named.

    Raises ModelNotFoundError when nothing of that name and version serves.
    """
    if release:
        for served in repository.models():
            if served.manifest.model == model and served.manifest.version == release:
                return served
    return repository.get(model, release)


def model_metadata(repository: Repository, model: str, release: str = "") -> dict[str, Any]:
    """Raises ModelNotFoundError."""
    served = find(repository, model, release)
    manifest = served.manifest
    return {
        "name": manifest.model,
        "versions": [release] if release else _versions(repository, model),
        "platform": platform(served),
        "inputs": [_tensor(spec) for spec in manifest.inputs],
        "outputs": [_tensor(spec) for spec in manifest.outputs],
    }


def model_config(repository: Repository, model: str, release: str = "", joining: Joining = UNJOINED) -> dict[str, Any]:
    """A model as Triton's ModelConfig would have it. Raises ModelNotFoundError.

    joining: how requests are joined. Where they are not, every dimension is told, the free one of the batch as -1: nothing
    here bounds a batch but the body's limit.
    """
    served = find(repository, model, release)
    manifest = served.manifest
    is_batched = joining.rows > 1 and has_free_batch(manifest)
    config: dict[str, Any] = {
        "name": manifest.model,
        "platform": platform(served),
        "backend": served.engine.name,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": joining.rows if is_batched else 0,
        "input": [_port(spec, is_batched=is_batched) for spec in manifest.inputs],
        "output": [_port(spec, is_batched=is_batched) for spec in manifest.outputs],
        "instance_group": [{"name": manifest.model, "kind": "KIND_AUTO", "count": 1}],
        "default_model_filename": manifest.model_file,
        "parameters": {name: {"string_value": str(value)} for name, value in sorted(served.engine.options.items())},
    }
    if served.engine.passed_over:
        config["parameters"]["engine_instead_of"] = {"string_value": served.engine.passed_over}
    if is_batched:
        config["dynamic_batching"] = {"preferred_batch_size": [], "max_queue_delay_microseconds": round(joining.delay_s * 1e6)}
    return config


def repository_index(
    repository: Repository, stored: tuple[str, ...] = (), *, only_ready: bool = False, is_draining: bool = False
) -> list[dict[str, str]]:
    """Every version that serves, and the models that are on the device without serving. stored: all models on the device."""
    index: list[dict[str, str]] = []
    serving = repository.models()
    for served in serving:
        state = {"state": "UNAVAILABLE", "reason": "the daemon is stopping"} if is_draining else {"state": "READY", "reason": ""}
        if served.failure:
            state = {"state": "UNAVAILABLE", "reason": served.failure}
        elif served.role != "active" and not is_draining:
            state["reason"] = f"serves as {served.role}"
        index.append({"name": served.manifest.model, "version": served.manifest.version, **state})
    names = {served.manifest.model for served in serving}
    index += [
        {"name": name, "version": "", "state": "UNAVAILABLE", "reason": "not loaded"} for name in stored if name not in names
    ]
    return [entry for entry in index if entry["state"] == "READY" or not only_ready]


def platform(served: ServedModel) -> str:
    """The engine that runs it and the file's format, as Triton names them: "onnxruntime_onnx"."""
    return f"{served.engine.name}_{served.manifest.model_file.rpartition('.')[2]}"


def _versions(repository: Repository, model: str) -> list[str]:
    """The active version first. Each once, though it may serve in two roles."""
    found = [served.manifest.version for served in repository.models() if served.manifest.model == model]
    if not found:
        raise ModelNotFoundError(f"unknown model {model!r}")
    return list(dict.fromkeys(found))


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _port(spec: TensorSpec, *, is_batched: bool) -> dict[str, Any]:
    return {
        "name": spec.name,
        "data_type": _CONFIG_TYPES.get(spec.datatype, f"TYPE_{spec.datatype}"),
        "dims": list(spec.shape[1:] if is_batched else spec.shape),
    }
