"""What does the gRPC service say of the server, its models and its shared memory? What HTTP says, as messages."""

from collections.abc import Callable
from typing import Any

from google.protobuf.json_format import ParseDict

from runtime.errors import ModelNotFoundError, RequestError
from runtime.serving.control import ModelControl
from runtime.serving.describe import find, model_config, model_metadata, repository_index, server_metadata
from runtime.serving.grpc.schema import MESSAGES, POOL
from runtime.serving.inference import Joining
from runtime.serving.models.repository import Repository
from runtime.serving.regions import Regions
from runtime.serving.statistics import model_statistics

Told = Callable[[Any], Any]


class Telling:
    """Answers everything but inference. is_draining makes readiness false."""

    def __init__(self, repository: Repository, control: ModelControl, regions: Regions, joining: Joining) -> None:
        self._repository = repository
        self._control = control
        self._regions = regions
        self._joining = joining
        self.is_draining = False

    def table(self) -> dict[str, Told]:
        """By method: a request message in, a response message out, or an awaitable of one."""
        return {
            "ServerLive": lambda _: MESSAGES.ServerLiveResponse(live=True),
            "ServerReady": lambda _: MESSAGES.ServerReadyResponse(ready=not self.is_draining),
            "ModelReady": self._model_ready,
            "ServerMetadata": lambda _: MESSAGES.ServerMetadataResponse(**server_metadata()),
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
            "SystemSharedMemoryStatus": self._region_status,
            "SystemSharedMemoryRegister": self._register_region,
            "SystemSharedMemoryUnregister": self._unregister_region,
        }

    def _model_ready(self, request: Any) -> Any:
        """An unknown model is not ready, and no error: clients ask this of models they wait for."""
        try:
            find(self._repository, request.name, request.version)
        except ModelNotFoundError:
            return MESSAGES.ModelReadyResponse(ready=False)
        return MESSAGES.ModelReadyResponse(ready=not self.is_draining)

    def _model_metadata(self, request: Any) -> Any:
        return MESSAGES.ModelMetadataResponse(**model_metadata(self._repository, request.name, request.version))

    def _model_config(self, request: Any) -> Any:
        config = model_config(self._repository, request.name, request.version, self._joining)
        del config["version_policy"]  # the message has room for whole numbers only
        return _message("ModelConfigResponse", {"config": config})

    def _model_statistics(self, request: Any) -> Any:
        return _message("ModelStatisticsResponse", model_statistics(self._repository, request.name, request.version))

    def _repository_index(self, request: Any) -> Any:
        stored = self._control.models()
        index = repository_index(self._repository, stored, only_ready=request.ready, is_draining=self.is_draining)
        return _message("RepositoryIndexResponse", {"models": index})

    async def _load(self, request: Any) -> Any:
        _refuse_parameters(request.parameters)
        await self._control.load(request.model_name)
        return MESSAGES.RepositoryModelLoadResponse()

    async def _unload(self, request: Any) -> Any:
        _refuse_parameters(request.parameters)
        await self._control.unload(request.model_name)
        return MESSAGES.RepositoryModelUnloadResponse()

    def _region_status(self, request: Any) -> Any:
        regions = {status.name: status._asdict() for status in self._regions.status(request.name)}
        return _message("SystemSharedMemoryStatusResponse", {"regions": regions})

    def _register_region(self, request: Any) -> Any:
        self._regions.register(request.name, request.key, request.offset, request.byte_size)
        return MESSAGES.SystemSharedMemoryRegisterResponse()

    def _unregister_region(self, request: Any) -> Any:
        self._regions.unregister(request.name)
        return MESSAGES.SystemSharedMemoryUnregisterResponse()


def _refuse_parameters(parameters: Any) -> None:
    if surplus := sorted(set(parameters) - {"unload_dependents"}):
        raise RequestError(f"parameter {surplus[0]!r} is not accepted: what a model is, its signed manifest says")


def _message(name: str, fields: dict[str, Any]) -> Any:
    return ParseDict(fields, getattr(MESSAGES, name)(), descriptor_pool=POOL)
