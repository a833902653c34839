"""libcuda as far as `runtime.backends.cuda` calls it, for machines without an NVIDIA driver: NOT the real library.

Every function is a C callback with the prototype cuda.h gives it, so calls cross the same border as in earnest: an argument type that
is wrong on our side arrives cut or shifted. "Device" memory is host memory at real addresses; copies and work queued on a stream
happen when the stream is waited for and not before, as a slow GPU would do it.
"""

import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_char, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

OUT_OF_MEMORY, NO_DEVICE, INVALID = 2, 100, 1
_WORDS = {OUT_OF_MEMORY: b"out of memory", NO_DEVICE: b"no CUDA-capable device is detected", INVALID: b"invalid argument"}


class FakeDriver:
    """One process's libcuda. allocated: addresses not yet freed; fail: name of a function -> the status it answers."""

    def __init__(self, *, gpus: int = 1, capability: tuple[int, int] = (8, 7), name: bytes = b"Fake Orin", cuda: int = 12060):
        self.gpus, self.capability, self.gpu_name, self.cuda = gpus, capability, name, cuda
        self.allocated: dict[int, Any] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.contexts = 0
        self.fail: dict[str, int] = {}
        self._keep: list[Any] = []  # texts handed out by address

    def library(self, _name: str) -> Any:
        """What `ctypes.CDLL` returns: an object whose attributes are C functions."""
        out = POINTER
        prototypes = {
            "cuInit": (c_uint,),
            "cuDriverGetVersion": (out(c_int),),
            "cuGetErrorString": (c_int, out(c_char_p)),
            "cuDeviceGetCount": (out(c_int),),
            "cuDeviceGet": (out(c_int), c_int),
            "cuDeviceGetName": (out(c_char), c_int, c_int),
            "cuDeviceGetAttribute": (out(c_int), c_int, c_int),
            "cuDevicePrimaryCtxRetain": (out(c_void_p), c_int),
            "cuDevicePrimaryCtxRelease_v2": (c_int,),
            "cuCtxSetCurrent": (c_void_p,),
            "cuStreamCreate": (out(c_void_p), c_uint),
            "cuStreamSynchronize": (c_void_p,),
            "cuStreamDestroy_v2": (c_void_p,),
            "cuMemAlloc_v2": (out(c_uint64), c_size_t),
            "cuMemFree_v2": (c_uint64,),
            "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
            "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
        }
        functions = type("FakeLibrary", (), {})()
        for name, types in prototypes.items():
            setattr(functions, name, CFUNCTYPE(c_int, *types)(self._answering(name)))
        return functions

    def queue(self, stream: int, work: Callable[[], None]) -> None:
        self.streams[stream].append(work)

    def inside(self, address: int, size: int) -> bool:
        """Whether these bytes lie in one allocation."""
        return any(start <= address and address + size <= start + len(block) for start, block in self.allocated.items())

    def _answering(self, name: str) -> Callable[..., int]:
        method = getattr(self, f"_{name.removesuffix('_v2')}")

        def answer(*arguments: Any) -> int:
            if name in self.fail:
                return self.fail[name]
            return method(*arguments) or 0

        return answer

    def _cuInit(self, flags: int) -> int:  # noqa: N802 - the driver's own names
        return NO_DEVICE if not self.gpus else 0

    def _cuDriverGetVersion(self, version: Any) -> None:  # noqa: N802
        version[0] = self.cuda

    def _cuGetErrorString(self, status: int, text: Any) -> None:  # noqa: N802
        self._keep.append(ctypes.create_string_buffer(_WORDS.get(status, b"some error")))
        text[0] = ctypes.cast(self._keep[-1], c_char_p)

    def _cuDeviceGetCount(self, count: Any) -> None:  # noqa: N802
        count[0] = self.gpus

    def _cuDeviceGet(self, device: Any, ordinal: int) -> None:  # noqa: N802
        device[0] = ordinal

    def _cuDeviceGetName(self, name: Any, length: int, device: int) -> None:  # noqa: N802
        for index, byte in enumerate(self.gpu_name[: length - 1] + b"\0"):
            name[index] = byte

    def _cuDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> None:  # noqa: N802
        value[0] = self.capability[{75: 0, 76: 1}[attribute]]

    def _cuDevicePrimaryCtxRetain(self, context: Any, device: int) -> None:  # noqa: N802
        self.contexts += 1
        context[0] = 0x7F00_1234_5678_0000  # over 32 bits, as real handles are

    def _cuDevicePrimaryCtxRelease(self, device: int) -> None:  # noqa: N802
        self.contexts -= 1

    def _cuCtxSetCurrent(self, context: int) -> int:  # noqa: N802
        return 0 if context == 0x7F00_1234_5678_0000 else INVALID

    def _cuStreamCreate(self, stream: Any, flags: int) -> None:  # noqa: N802
        handle = 0x7F00_0000_1000 + len(self._keep)
        self._keep.append(None)
        self.streams[handle] = []
        stream[0] = handle

    def _cuStreamSynchronize(self, stream: int) -> int:  # noqa: N802
        if stream not in self.streams:
            return INVALID
        queued, self.streams[stream] = self.streams[stream], []
        for work in queued:
            work()
        return 0

    def _cuStreamDestroy(self, stream: int) -> int:  # noqa: N802
        return 0 if self.streams.pop(stream, None) is not None else INVALID

    def _cuMemAlloc(self, address: Any, size: int) -> None:  # noqa: N802
        block = ctypes.create_string_buffer(size)
        address[0] = ctypes.addressof(block)
        self.allocated[ctypes.addressof(block)] = block

    def _cuMemFree(self, address: int) -> int:  # noqa: N802
        return 0 if self.allocated.pop(address, None) is not None else INVALID

    def _cuMemcpyHtoDAsync(self, device: int, host: int, size: int, stream: int) -> int:  # noqa: N802
        return self._copy(stream, device, host, size, device)

    def _cuMemcpyDtoHAsync(self, host: int, device: int, size: int, stream: int) -> int:  # noqa: N802
        return self._copy(stream, host, device, size, device)

    def _copy(self, stream: int, target: int, source: int, size: int, device: int) -> int:
        if stream not in self.streams or not self.inside(device, size):
            return INVALID
        self.queue(stream, lambda: ctypes.memmove(target, source, size) and None)
        return 0
