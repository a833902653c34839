"""An engine that computes like the reference one until it is shown a large number: then it does its worst.

Not part of the product: it is registered by a `.dist-info` folder on PYTHONPATH, exactly as a third party's would be.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from runtime.backends.base import Availability
from runtime.backends.reference import ReferenceBackend
from runtime.errors import InferenceError, ModelLoadError

NAME = "bad"
POISON = 100.0
"""Inputs with anything larger set the fault off."""
VERSION = "1.2.0"
_HELPERS = ("runtime.backends.engine_process", "runtime.update.helper")
_hoard: list[np.ndarray] = []


def register(folder: Path) -> str:
    """Make the engine known to processes that have this folder on their PYTHONPATH. Returns the folder."""
    info = folder / "bad_engine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-engine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[edgewright.backends]\n{NAME} = tests.support.bad_engine:BadBackend\n")
    return str(folder)


class BadBackend:
    name = NAME

    def probe(self):
        return Availability(ok=True, version=VERSION)

    def load(self, model, options):
        """Option "fault": which; see `_FAULTS`, and "load" and "load_here" which strike at once."""
        fault = str(options.get("fault", ""))
        if fault == "load":
            os.abort()
        if fault == "load_here" and not any(helper in sys.orig_argv for helper in _HELPERS):
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "refuse":
            raise ModelLoadError("bad cannot open this")
        return BadModel(ReferenceBackend().load(model, {}), fault)


class BadModel:
    def __init__(self, model, fault):
        self.inputs, self.outputs = model.inputs, model.outputs
        self._model, self._fault = model, fault

    def infer(self, inputs):
        if self._fault in _FAULTS and float(np.abs(inputs["input"]).max()) > POISON:
            _FAULTS[self._fault]()
        return self._model.infer(inputs)

    def close(self):
        self._model.close()


def _leak():
    while True:
        _hoard.append(np.empty(1 << 20))  # the cap counts what is asked for, so nothing need be touched


def _leak_in_the_engines_words():
    """As a native engine tells of it: its own error, with what was taken kept."""
    try:
        _leak()
    except MemoryError:
        raise InferenceError("bad_alloc") from None


def _raise():
    raise InferenceError("as if the engine broke")


_FAULTS = {
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: time.sleep(3600),
    "hang_holding_the_interpreter": lambda: ctypes.PyDLL(None).sleep(3600),
    "leak": _leak,
    "leak_in_the_engines_words": _leak_in_the_engines_words,
    "raise": _raise,
}
