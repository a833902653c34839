"""How do two processes hand each other tensors without sending them?

One arena per direction: memory without a name (memfd) that both have mapped. Its head carries short messages, the rest the
tensors, each at a multiple of 64 bytes. It grows when its writer needs more and can never shrink (a seal the kernel keeps),
so that whatever the other process does, reading it is no fault in this one.
"""

import fcntl
import mmap
import os
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from runtime.backends.base import Tensors
from runtime.backends.datatypes import NUMPY_TYPES
from runtime.contract.artifact import TensorSpec
from runtime.errors import InferenceError

HEAD_BYTES = 64 * 1024
_LENGTH_BYTES = 4
_ALIGNMENT = 64
_GROWTH = 1 << 16

# The bells two processes ring for each other, one byte each.
SAME = b"s"
"""Tensors of the same shapes as last time."""
TOLD = b"t"
"""A message in the arena's head tells what there is."""


class Layout(msgspec.Struct, frozen=True, array_like=True):
    """What lies in an arena. sizes: bytes of each tensor, in the order of the model's specs; arena_bytes: how much to map."""

    arena_bytes: int
    shapes: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]


class Arena:
    """One direction. Writer and reader each hold an object of this over the same handle."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._map = mmap.mmap(handle, 0)

    @classmethod
    def create(cls, name: str) -> "Arena":
        handle = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(handle, HEAD_BYTES)
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return cls(handle)

    @property
    def size_bytes(self) -> int:
        return len(self._map)

    def grow(self, size_bytes: int) -> None:
        """Make the arena hold this much; for its writer. Raises OSError when there is no memory."""
        if size_bytes > len(self._map):
            os.ftruncate(self.handle, -(-size_bytes // _GROWTH) * _GROWTH)
            self._map = mmap.mmap(self.handle, 0)

    def follow(self, size_bytes: int) -> None:
        """Map what the writer has grown to; for the reader. Raises InferenceError when it is not there."""
        if size_bytes > len(self._map):
            self._map = mmap.mmap(self.handle, 0)
        if size_bytes > len(self._map):
            raise InferenceError(f"the other process speaks of {size_bytes} bytes of shared memory; there are {len(self._map)}")

    def tell(self, message: bytes) -> None:
        """Put a message into the head, cut to what fits."""
        message = message[: HEAD_BYTES - _LENGTH_BYTES]
        self._map[:_LENGTH_BYTES] = len(message).to_bytes(_LENGTH_BYTES, "little")
        self._map[_LENGTH_BYTES : _LENGTH_BYTES + len(message)] = message

    def told(self) -> bytes:
        length = int.from_bytes(self._map[:_LENGTH_BYTES], "little")
        return self._map[_LENGTH_BYTES : _LENGTH_BYTES + min(length, HEAD_BYTES - _LENGTH_BYTES)]

    def place(self, sizes: Iterable[int]) -> list[int]:
        """Where tensors of these sizes lie, one behind the other, and behind the last: the bytes of all."""
        offsets, at = [], HEAD_BYTES
        for size in sizes:
            offsets.append(at)
            at += -(-size // _ALIGNMENT) * _ALIGNMENT
        return [*offsets, at]

    def views(self, specs: Sequence[TensorSpec], layout: Layout) -> list[np.ndarray]:
        """The tensors in place: of their own type and shape, or bare bytes for BYTES, whose entries have no fixed size."""
        offsets = self.place(layout.sizes)
        if offsets[-1] > len(self._map) or len(layout.shapes) != len(specs) or len(layout.sizes) != len(specs):
            raise InferenceError("the other process speaks of tensors that are not in the shared memory")
        found = []
        for spec, shape, size, offset in zip(specs, layout.shapes, layout.sizes, offsets[:-1], strict=True):
            if spec.datatype == "BYTES":
                found.append(np.ndarray((size,), np.uint8, self._map, offset))
            elif size != size_of(spec, shape) or min(shape, default=0) < 0:
                raise InferenceError(f"the other process speaks of {size} bytes for {spec.name!r} of shape {list(shape)}")
            else:
                found.append(np.ndarray(shape, NUMPY_TYPES[spec.datatype], self._map, offset))
        return found

    def close(self) -> None:
        """Let go, as whoever holds views must too: the memory goes when the other process and the last view of it have."""
        os.close(self.handle)
        del self._map  # it cannot be closed while there are views


def has_bytes(specs: Iterable[TensorSpec]) -> bool:
    return any(spec.datatype == "BYTES" for spec in specs)


def size_of(spec: TensorSpec, shape: tuple[int, ...]) -> int:
    """How many bytes a tensor of a fixed-size type takes."""
    size = NUMPY_TYPES[spec.datatype].itemsize
    for dimension in shape:
        size *= dimension
    return size


def packed(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    """A tensor as it goes into an arena: itself, or the entries of BYTES as one row of bytes."""
    if spec.datatype != "BYTES":
        return array
    return np.frombuffer(msgspec.msgpack.encode(array.ravel().tolist()), np.uint8)


def unpacked(spec: TensorSpec, view: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `packed`; for other than BYTES the view itself."""
    if spec.datatype != "BYTES":
        return view
    try:
        entries = msgspec.msgpack.decode(view.tobytes(), type=list[bytes])
        array = np.empty(len(entries), object)
        array[:] = entries
        return array.reshape(shape)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InferenceError(f"the entries of {spec.name!r} are unreadable: {error}") from error


class Writer:
    """Lays tensors of one model out in an arena, and remembers how the last ones lay."""

    def __init__(self, arena: Arena, specs: tuple[TensorSpec, ...]) -> None:
        self._arena = arena
        self._specs = specs
        self._names = [spec.name for spec in specs]
        self._types = [NUMPY_TYPES[spec.datatype] for spec in specs]
        self._has_bytes = has_bytes(specs)
        self._shapes: tuple[tuple[int, ...], ...] | None = None
        self._views: list[np.ndarray] = []

    def write(self, tensors: Tensors) -> bytes:
        """Copy one array per spec into the arena. Returns the bell to ring.

        Raises InferenceError for other names or types than the model's, and where there is no memory.
        """
        try:
            arrays = [tensors[name] for name in self._names]
        except KeyError as error:
            raise InferenceError(f"tensor {error} is missing") from error
        if len(tensors) != len(arrays):
            raise InferenceError(f"the model has {', '.join(self._names)}, not {', '.join(tensors)}")
        shapes = tuple([array.shape for array in arrays])
        for name, array, kind in zip(self._names, arrays, self._types, strict=True):
            if array.dtype != kind:
                raise InferenceError(f"{name!r} must be {kind}, not {array.dtype}")
        if shapes == self._shapes:
            for view, array in zip(self._views, arrays, strict=True):
                view[...] = array
            return SAME
        return self._write_anew(arrays, shapes)

    def _write_anew(self, arrays: list[np.ndarray], shapes: tuple[tuple[int, ...], ...]) -> bytes:
        self._shapes = None
        parts = [packed(spec, array) for spec, array in zip(self._specs, arrays, strict=True)]
        sizes = tuple(part.nbytes for part in parts)
        try:
            self._arena.grow(self._arena.place(sizes)[-1])
        except (OSError, ValueError) as error:
            raise InferenceError(f"no shared memory for {sum(sizes)} bytes of tensors: {error}") from error
        layout = Layout(self._arena.size_bytes, shapes, sizes)
        self._views = self._arena.views(self._specs, layout)
        for view, part in zip(self._views, parts, strict=True):
            view[...] = part
        self._arena.tell(msgspec.msgpack.encode(layout))
        if not self._has_bytes:
            self._shapes = shapes
        return TOLD


class Reader:
    """Finds the tensors of one model in an arena."""

    def __init__(self, arena: Arena, specs: tuple[TensorSpec, ...]) -> None:
        self._arena = arena
        self._specs = specs
        self._views: dict[str, np.ndarray] = {}

    def read(self, bell: bytes) -> dict[str, np.ndarray]:
        """The tensors in place; what is written next overwrites them. Raises InferenceError for an unreadable layout."""
        if bell == SAME:
            return self._views
        try:
            layout = msgspec.msgpack.decode(self._arena.told(), type=Layout)
        except msgspec.MsgspecError as error:
            raise InferenceError(f"the other process's message is unreadable: {error}") from error
        self._arena.follow(layout.arena_bytes)
        views = self._arena.views(self._specs, layout)
        self._views = {
            spec.name: unpacked(spec, view, shape) for spec, view, shape in zip(self._specs, views, layout.shapes, strict=True)
        }
        return self._views
