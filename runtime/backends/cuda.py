"""How is the memory of an NVIDIA GPU reached without another package? Through libcuda, the driver's own library.

Wherever there is a usable GPU there is libcuda, on a Jetson and in a container too; cuda-python would be a dependency to pin to a
CUDA version, libcudart one to find first, torch gigabytes. The context is the device's primary one, which TensorRT uses as well.
Source of prototypes and numbers: cuda.h, "CUDA Driver API"; the `_v2` names are what its macros call.
"""

import ctypes
from collections.abc import Mapping
from ctypes import CDLL, POINTER, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

import numpy as np

LIBRARY = "libcuda.so.1"
_SUCCESS = 0
_NO_DEVICE = 100
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: do not wait for the default stream, which others may use
_NAME_LENGTH = 256

PROTOTYPES: Mapping[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
}
"""Argument types of each function used; all return a CUresult. Left to guess, ctypes would cut addresses to 32 bits."""


class CudaError(Exception):
    """The driver is not there, sees no GPU, or refused a call. Never leaves the backend that uses this module."""


class NoGpuError(CudaError):
    """The driver is there, and nothing for it to drive that this process may see."""


class Driver:
    """libcuda, loaded. Only its own errors come out of it: CudaError."""

    def __init__(self) -> None:
        try:
            library = CDLL(LIBRARY)
            self._functions = {name: _bind(library, name, types) for name, types in PROTOTYPES.items()}
        except (OSError, AttributeError) as error:
            raise CudaError(f"there is no NVIDIA driver ({error})") from error
        status = self._functions["cuInit"](0)
        if status == _NO_DEVICE:
            raise NoGpuError("the NVIDIA driver sees no GPU")
        self._require(status, "cuInit")

    def call(self, name: str, *arguments: Any) -> None:
        """Call one of PROTOTYPES. Raises CudaError with the driver's own words."""
        self._require(self._functions[name](*arguments), name)

    def integer(self, name: str, *arguments: Any) -> int:
        """What a function leaves in the int its first argument points to."""
        value = c_int()
        self.call(name, ctypes.byref(value), *arguments)
        return value.value

    def _require(self, status: int, name: str) -> None:
        if status == _SUCCESS:
            return
        text = c_char_p()
        self._functions["cuGetErrorString"](status, ctypes.byref(text))
        raise CudaError(f"{name} failed: {(text.value or b'unknown error').decode(errors='replace')} ({status})")


class Gpu:
    """The first GPU this process may see (CUDA_VISIBLE_DEVICES decides), its primary context held until `close`.

    compute_capability: as "8.7"; cuda: the newest CUDA the driver supports, as "12.6".
    """

    def __init__(self) -> None:
        self._driver = Driver()
        if not self._driver.integer("cuDeviceGetCount"):
            raise NoGpuError("the NVIDIA driver sees no GPU")
        self._device = self._driver.integer("cuDeviceGet", 0)
        name = ctypes.create_string_buffer(_NAME_LENGTH)
        self._driver.call("cuDeviceGetName", name, _NAME_LENGTH, self._device)
        self.name = name.value.decode(errors="replace")
        major, minor = (self._driver.integer("cuDeviceGetAttribute", which, self._device) for which in (_MAJOR, _MINOR))
        self.compute_capability = f"{major}.{minor}"
        version = self._driver.integer("cuDriverGetVersion")
        self.cuda = f"{version // 1000}.{version % 1000 // 10}"
        self._context: c_void_p | None = None

    def bind(self) -> None:
        """Make the GPU current in this thread; whatever calls the driver or TensorRT does so first."""
        if self._context is None:
            context = c_void_p()
            self._driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
            self._context = context
        self._driver.call("cuCtxSetCurrent", self._context)

    def allocate(self, size_bytes: int) -> int:
        """Address of that much device memory, at least one byte."""
        address = c_uint64()
        self._driver.call("cuMemAlloc_v2", ctypes.byref(address), max(size_bytes, 1))
        return address.value

    def free(self, address: int) -> None:
        self._driver.call("cuMemFree_v2", address)

    def stream(self) -> int:
        """Handle of a new stream."""
        handle = c_void_p()
        self._driver.call("cuStreamCreate", ctypes.byref(handle), _NON_BLOCKING)
        return handle.value or 0

    def end_stream(self, stream: int) -> None:
        self._driver.call("cuStreamDestroy_v2", stream)

    def upload(self, address: int, array: np.ndarray, stream: int) -> None:
        """Queue a copy to the device. array: contiguous, kept alive and unchanged until `wait`."""
        self._driver.call("cuMemcpyHtoDAsync_v2", address, array.ctypes.data, array.nbytes, stream)

    def download(self, array: np.ndarray, address: int, stream: int) -> None:
        """Queue a copy from the device. array: contiguous, filled after `wait`."""
        self._driver.call("cuMemcpyDtoHAsync_v2", array.ctypes.data, address, array.nbytes, stream)

    def wait(self, stream: int) -> None:
        """Block until everything queued is done. Raises CudaError if any of it failed."""
        self._driver.call("cuStreamSynchronize", stream)

    def close(self) -> None:
        """Let the context go; what was allocated must have been freed."""
        if self._context is not None:
            self._context = None
            self._driver.call("cuDevicePrimaryCtxRelease_v2", self._device)


def _bind(library: Any, name: str, types: tuple[Any, ...]) -> Any:
    function = getattr(library, name)
    function.argtypes = types
    function.restype = c_int
    return function
