"""How does neural-compressor quantize the torch network itself, before it becomes ONNX?

By torch's own graph (PT2E): static ranges from calibration examples, the roundings as explicit operators, which the exporter writes
as QDQ for ONNX Runtime. A rung late in the ladder: another tool's choices of what to quantize, at the price of loading torch.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from toolchain.compress.base import Ground
from toolchain.compress.calibration import batches, draw
from toolchain.errors import BuildError, StageError
from toolchain.pipeline.products import Precision, Variant
from toolchain.pipeline.progress import Progress
from toolchain.quiet import silenced
from toolchain.recipe import Method

if TYPE_CHECKING:  # torch takes seconds to import; only a stage that runs pays them
    from torch import nn


class NeuralInt8(msgspec.Struct, frozen=True, kw_only=True):
    """neural-compressor's static PT2E with its own default settings."""

    name: ClassVar[str] = "int8-neural"
    engine: ClassVar[str] = "onnxruntime"
    precision: ClassVar[Precision] = "int8"
    method: ClassVar[Method | None] = "quantize"
    revision: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = ("neural-compressor", "torch", "torchao", "onnx", "onnxscript", "numpy")
    needs_network: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True

    def unfit(self, ground: Ground) -> str:
        if ground.weight_bits != 8:
            return "neural-compressor's weights use all 8 bits, whose sums this target's CPU may saturate"
        return ""

    def config(self, ground: Ground) -> dict[str, Any]:
        return {"calibration rows": ground.settings.calibration_rows}

    def make(self, ground: Ground, name: str, work: Path, progress: Progress) -> Variant:
        """Raises StageError where neural-compressor fails, NetworkError where the result cannot be expressed as ONNX."""
        import numpy as np

        from toolchain.convert.onnx import export

        assert ground.network is not None, "needs_network"
        quantized = _quantize(ground, ground.network.load())
        references = [np.load(ground.model.folder / file, mmap_mode="r") for file in ground.model.value.reference]
        written = export(quantized, references, ground.data, work, ground.model.value.form)
        return msgspec.structs.replace(written, name=name, scheme=self.name, precision=self.precision)


ONNXRUNTIME_NEURAL = NeuralInt8()


def _quantize(ground: Ground, network: "nn.Module") -> "nn.Module":
    import torch

    rows = [
        tuple(torch.from_numpy(array) for array in batch.values()) for batch in batches(draw(ground, "balanced"), ground)
    ]  # fmt: skip
    example = tuple(array[:2] for array in rows[0])
    batch = torch.export.Dim("batch")
    with _quietly():
        from neural_compressor.torch.export import export
        from neural_compressor.torch.quantization import convert, get_default_static_config, prepare

        graph = export(network, example_inputs=example, dynamic_shapes=tuple({0: batch} for _ in example))
        prepared = prepare(graph, get_default_static_config())
        with torch.no_grad():
            for row in rows:
                prepared(*row)
        quantized: nn.Module = convert(prepared)
    quantized.eval = lambda: quantized  # type: ignore[method-assign] # an exported graph has no modes and refuses to be asked
    return quantized


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """neural-compressor tells each step in its log and torch warns about its own internals; what fails comes as an exception."""
    try:
        with silenced():
            yield
    except BuildError:
        raise
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise StageError(f"neural-compressor cannot quantize the network: {type(error).__name__}: {first}") from error
