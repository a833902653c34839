"""How does a Python program on the device run models without a daemon, watched all the same?

with Runtime("out/digits/1.0.0/x86-64-cpu") as runtime:
    scores = runtime.infer({"input": images})["scores"]
    labels = runtime.predict([photo])["label"]
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from runtime.backends.base import Tensors
from runtime.contract.artifact import Manifest
from runtime.monitor.monitor import WindowCounts
from runtime.processing.pipeline import decoded, prepare
from runtime.serving.models.repository import Repository


class Runtime:
    """Artifacts served in this process. `infer` may be called from several threads; one model runs one at a time."""

    def __init__(self, *artifacts: str | Path) -> None:
        """artifacts: directories with a manifest. Raises what `runtime.serving.models.repository.open_artifact` does."""
        self._repository = Repository()
        self._sole = ""
        """The model that serves where it is the only one."""
        try:
            for directory in artifacts:
                self.open(directory)
        except BaseException:
            self.close()
            raise

    def open(self, directory: str | Path) -> Manifest:
        """Serve an artifact, in place of another version of its model if there is one."""
        served = self._repository.open(Path(directory))
        self._repository.switch(served)
        models = {one.manifest.model for one in self._repository.models()}
        self._sole = models.pop() if len(models) == 1 else ""
        return served.manifest

    def infer(self, inputs: Tensors, model: str = "") -> dict[str, np.ndarray]:
        """Run one batch. inputs: arrays by name, as the manifest declares them; model: needed when several are open.

        Returns the network's outputs by name. Raises RequestError (ModelNotFoundError among them) or InferenceError.
        """
        return self._repository.infer(model or self._sole or self._repository.only(), inputs)[1]

    def predict(self, examples: Sequence[np.ndarray], model: str = "") -> dict[str, np.ndarray]:
        """Run raw inputs through the manifest's steps, the network, and the manifest's steps again.

        examples: one array each, such as pictures uint8[h, w, 3] of any size. Returns arrays with one row per example, by name:
        a decoding step's answer such as class, score and label, else the outputs with scores in place of the first.
        Raises as `infer`, ProcessingError for a model whose inputs cannot be prepared so.
        """
        name = model or self._repository.only()
        while True:
            manifest = self._repository.get(name).manifest
            served, outputs = self._repository.infer(name, prepare(manifest, examples))
            if served.manifest is manifest:  # else another version came between: its steps may be others
                return decoded(manifest, outputs)

    def take_window(self, model: str = "") -> WindowCounts:
        """What was seen since the last call, as the daemon would report it."""
        return self._repository.get(model or self._repository.only()).monitor.take()

    def close(self) -> None:
        """Close every model; closing twice is no error."""
        self._sole = ""
        self._repository.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
