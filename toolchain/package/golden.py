"""Which inputs and outputs does a device test itself with?

A few validation examples through the packed variant; drawn at random where the data is personal, so that no example of a person
leaves the build.
"""

from pathlib import Path

import numpy as np

from runtime.contract.artifact import TensorSpec
from toolchain.benchmark.run import outputs_of
from toolchain.data.arrays import read_split
from toolchain.pipeline.products import Precision, SteeringData, Variant
from toolchain.pipeline.stage import Stored

ROWS = 16
_SEED = 0
_TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 2e-2, "int8": 5e-2, "int4": 5e-2}
"""Of the outputs' size. Float engines agree within 1e-6 across CPUs; in int8 one rounding differently moves a whole step."""


def write_golden(path: Path, variant: Stored[Variant], data: Stored[SteeringData], *, personal: bool) -> None:
    """Write `in.NAME`, `out.NAME` and `tolerance` (rtol, atol) arrays. personal: draw inputs instead of copying examples."""
    inputs = _synthetic(variant.value.inputs) if personal else _examples(data)
    outputs = outputs_of(variant, inputs)
    arrays = {f"in.{spec.name}": array for spec, array in zip(variant.value.inputs, inputs, strict=True)}
    arrays |= {f"out.{spec.name}": array for spec, array in zip(variant.value.outputs, outputs, strict=True)}
    tolerance = _TOLERANCE[variant.value.precision]
    size = max(float(np.sqrt(np.square(array.astype(np.float64)).mean())) for array in outputs)
    arrays["tolerance"] = np.array([tolerance, tolerance * size])
    np.savez(path, **arrays)  # type: ignore[arg-type]  # its other keyword is for pickles


def _examples(data: Stored[SteeringData]) -> list[np.ndarray]:
    """Spread over the whole split, since sources often return one class after the other."""
    arrays, _ = read_split(data.folder, data.value.validation)
    total = data.value.validation.rows
    chosen = np.linspace(0, total - 1, min(ROWS, total)).astype(int)
    return [array[chosen] for array in arrays]


def _synthetic(specs: tuple[TensorSpec, ...]) -> list[np.ndarray]:
    """Uniform over the declared range; nothing else about personal data may show, its extremes neither."""
    generator = np.random.default_rng(_SEED)
    arrays = []
    for spec in specs:
        low, high = (float(bound) for bound in spec.range) if spec.range is not None else (0.0, 1.0)
        values = generator.uniform(low, high, (ROWS, *spec.shape[1:]))
        arrays.append(values.astype(_NUMPY.get(spec.datatype, np.float32)))
    return arrays


_NUMPY: dict[str, type[np.generic]] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "INT8": np.int8,
    "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
