"""Which schemes are there, and which does an engine try next where int8 costs too much of the metric?"""

from toolchain.compress.base import Scheme
from toolchain.compress.floating import OPENVINO_BFLOAT16, OPENVINO_FLOAT32
from toolchain.compress.onnxruntime import ONNXRUNTIME_INT8
from toolchain.errors import RecipeError

SCHEMES: tuple[Scheme, ...] = (OPENVINO_FLOAT32, OPENVINO_BFLOAT16, ONNXRUNTIME_INT8)
"""Every scheme but the float ONNX itself, which every build makes."""

LADDERS: dict[str, tuple[str, ...]] = {"onnxruntime": ("int8",)}
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
