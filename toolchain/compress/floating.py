"""Which variants keep floating point? The float ONNX as it is, and OpenVINO's own format in f32 or, where asked for, bf16."""

from pathlib import Path
from typing import Any, ClassVar

import msgspec

from toolchain.compress.base import Ground
from toolchain.pipeline.products import Precision, Variant
from toolchain.pipeline.progress import Progress
from toolchain.recipe import Method
from toolchain.targets import this_host

_COMPUTES_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""CPU flags as Linux spells them, on x86 and on Arm; OpenVINO takes bf16 with any of them."""


class OpenVinoFloat(msgspec.Struct, frozen=True, kw_only=True):
    """The same weights as float32 files; `precision` is what the CPU computes in, pinned in the engine's options."""

    name: str
    precision: Precision
    hint: str
    engine: ClassVar[str] = "openvino"
    method: ClassVar[Method | None] = None
    revision: ClassVar[int] = 4
    tools: ClassVar[tuple[str, ...]] = ("openvino",)
    needs_network: ClassVar[bool] = False
    needs_data: ClassVar[bool] = False

    def unfit(self, ground: Ground) -> str:
        if self.precision != "bfloat16" or this_host().flags & _COMPUTES_BF16:
            return ""
        return "this CPU does not compute in bf16, so its answers cannot be checked here"

    def config(self, ground: Ground) -> dict[str, Any]:
        return {"precision": self.hint}

    def make(self, ground: Ground, name: str, work: Path, progress: Progress) -> Variant:
        from toolchain.convert.openvino import convert

        return convert(ground.model, work, name=name, scheme=self.name, precision=self.precision, hint=self.hint)


OPENVINO_FLOAT32 = OpenVinoFloat(name="float32", precision="float32", hint="f32")
OPENVINO_BFLOAT16 = OpenVinoFloat(name="bf16", precision="bfloat16", hint="bf16")
