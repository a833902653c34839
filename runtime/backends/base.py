"""What must an inference engine offer to be used here, on the device and on the host alike?

A backend is found by the entry-point group `edgewright.backends`; ours and a third party's are found the same way.
The manifest's `engine_options` reach `load` unchanged, and a backend refuses what it cannot honour.
"""

from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

import msgspec
import numpy as np

from runtime.contract.artifact import OptionValue, TensorSpec
from runtime.errors import EngineOptionError, EngineUnknownError

ENTRY_POINT_GROUP = "edgewright.backends"

Tensors = Mapping[str, np.ndarray]
Options = TypeVar("Options", bound=msgspec.Struct)


class Availability(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an engine can be used here. version: dotted, "" when absent; reason: why not, and what to do."""

    ok: bool
    version: str = ""
    reason: str = ""


class LoadedModel(Protocol):
    """A model ready to run in this process. Not safe for concurrent `infer` calls unless its backend says so."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def infer(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """Run once. inputs: one array per input name, of its datatype and shape, left unmodified.

        Returns one array per output name, owned by the caller. Blocks. Raises InferenceError when the engine fails.
        """

    def close(self) -> None:
        """Free the engine's memory; the model cannot run afterwards. Closing twice is no error."""


class Backend(Protocol):
    name: ClassVar[str]

    def probe(self) -> Availability:
        """Cheap, never raises; does not load the engine's native library if its metadata suffices."""

    def load(self, model: Path, options: Mapping[str, OptionValue]) -> LoadedModel:
        """Open a model file. options: as recorded in the manifest; absent ones take the backend's pinned defaults.

        Raises EngineMissingError, EngineOptionError or ModelLoadError.
        """


def backend_names() -> tuple[str, ...]:
    """Every registered backend, sorted; none is imported."""
    return tuple(sorted({entry.name for entry in entry_points(group=ENTRY_POINT_GROUP)}))


def get_backend(name: str) -> Backend:
    """The backend of this name. Raises EngineUnknownError naming the known ones."""
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == name:
            backend: Backend = entry.load()()
            return backend
    raise EngineUnknownError(f"unknown engine {name!r}; known here: {', '.join(backend_names())}")


def parse_options(kind: type[Options], options: Mapping[str, OptionValue], backend: str) -> Options:
    """Typed options of one backend. `kind` forbids unknown fields, so a misspelt option is refused, not ignored."""
    try:
        return msgspec.convert(dict(options), kind)
    except msgspec.ValidationError as error:
        raise EngineOptionError(f"{backend} cannot honour its options: {error}") from error
