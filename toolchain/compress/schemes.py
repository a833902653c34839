"""Which schemes are there, and which does an engine try next where int8 costs too much of the metric?"""

from toolchain.compress.base import Scheme
from toolchain.compress.floating import OPENVINO_BFLOAT16, OPENVINO_FLOAT32
from toolchain.compress.neural import ONNXRUNTIME_NEURAL
from toolchain.compress.nncf import OPENVINO_ACCURACY, OPENVINO_BALANCED, OPENVINO_INT8, OPENVINO_SMOOTH
from toolchain.compress.onnxruntime import (
    ONNXRUNTIME_BALANCED,
    ONNXRUNTIME_ENTROPY,
    ONNXRUNTIME_INT8,
    ONNXRUNTIME_PERCENTILE,
    ONNXRUNTIME_SMOOTH,
)
from toolchain.compress.qat import ONNXRUNTIME_QAT, OPENVINO_QAT
from toolchain.compress.restore import ONNXRUNTIME_RESTORED
from toolchain.compress.tensorrt import TENSORRT_FLOATS, TENSORRT_LADDER
from toolchain.compress.weights import ONNXRUNTIME_WEIGHTS4, ONNXRUNTIME_WEIGHTS8
from toolchain.errors import RecipeError

_LADDERS: dict[str, tuple[Scheme, ...]] = {
    "onnxruntime": (
        ONNXRUNTIME_INT8, ONNXRUNTIME_PERCENTILE, ONNXRUNTIME_BALANCED, ONNXRUNTIME_SMOOTH, ONNXRUNTIME_RESTORED,
        ONNXRUNTIME_ENTROPY, ONNXRUNTIME_NEURAL, ONNXRUNTIME_QAT,
    ),
    "openvino": (OPENVINO_INT8, OPENVINO_BALANCED, OPENVINO_SMOOTH, OPENVINO_ACCURACY, OPENVINO_QAT),
    "tensorrt": TENSORRT_LADDER,
}  # fmt: skip

SCHEMES: tuple[Scheme, ...] = (
    OPENVINO_FLOAT32, OPENVINO_BFLOAT16, *TENSORRT_FLOATS, ONNXRUNTIME_WEIGHTS8, ONNXRUNTIME_WEIGHTS4,
    *(item for rungs in _LADDERS.values() for item in rungs),
)  # fmt: skip
"""Every scheme but the float ONNX itself, which every build makes."""

LADDERS: dict[str, tuple[str, ...]] = {engine: tuple(item.name for item in rungs) for engine, rungs in _LADDERS.items()}
"""Engine -> its int8 schemes, the cheapest first; the first is tried always, the next where it missed the metric's limit."""


def scheme(engine: str, name: str) -> Scheme:
    return next(item for item in SCHEMES if (item.engine, item.name) == (engine, name))


def named(text: str) -> Scheme:
    """A scheme as a recipe names it, "ENGINE-NAME". Raises RecipeError with the ones there are."""
    for item in SCHEMES:
        if f"{item.engine}-{item.name}" == text:
            return item
    raise RecipeError(
        f"compress.schemes: no scheme {text!r}; known: {', '.join(f'{item.engine}-{item.name}' for item in SCHEMES)}"
    )
