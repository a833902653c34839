"""How does a training survive its process being killed?

At the end of an epoch everything the next one depends on is written whole to one file; a training that finds such a file goes on
from there and ends with the same bits as if it had never stopped. The folder is named by the digest of all that decides the
weights, so a changed recipe finds nothing. The stage cache drops it once the result is in.
"""

import contextlib
import hashlib
import io
import pickle
import time
from pathlib import Path
from typing import Any

import torch

from toolchain.files import write_durably
from toolchain.pipeline.progress import Progress

FILE_NAME = "state.pt"
EVERY_S = 1.0
"""Epochs shorter than this share a file: doing them again costs less than waiting for the disk after each."""
REVISION = 1
"""Rises whenever the state's form does; another revision's file is not understood."""
_DIGEST_BYTES = 32


class Checkpoints:
    """The newest state of one training. every_s: least time between two files, in seconds."""

    def __init__(self, folder: Path, *, every_s: float | None = None) -> None:
        self._path = folder / FILE_NAME
        self._every_s = EVERY_S if every_s is None else every_s
        self._written = time.monotonic()

    def load(self, device: torch.device, progress: Progress) -> dict[str, Any] | None:
        """The state of a training that was stopped, None where there is none that can be read (said aloud)."""
        try:
            state = _decode(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
            progress.note(f"{self._path} cannot be read ({error}); training begins anew")
            return None
        if state["device"] != device.type:
            progress.note(f"training was begun on {state['device']} and this is {device.type}; it begins anew")
            return None
        return state

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._written >= self._every_s

    def save(self, state: dict[str, Any], device: torch.device, progress: Progress) -> None:
        """Replace the file. A disk that takes none is said aloud: it endangers nothing but a later resume."""
        buffer = io.BytesIO()
        torch.save(state | {"revision": REVISION, "device": device.type}, buffer)
        payload = buffer.getvalue()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(self._path, hashlib.sha256(payload).digest() + payload)
        except OSError as error:
            progress.note(f"{self._path} cannot be written ({error.strerror}); a killed training would begin anew")
        self._written = time.monotonic()

    def drop(self) -> None:
        """Forget the training."""
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else lies there
            self._path.parent.rmdir()


def _decode(data: bytes) -> dict[str, Any]:
    digest, payload = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        raise ValueError("its bytes are not those that were written")
    # To the CPU: what loads a state brings it to the right device, and AdamW's step counts and generators belong here.
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    if state["revision"] != REVISION:
        raise ValueError(f"revision {state['revision']} instead of {REVISION}")
    return state
