"""Does a model compute through our backends what it computes in the bare engine? ONNX's node tests, in both.

The layer above an engine may lose nothing: what passes there passes here. Apart are graphs with inputs or outputs that the Open
Inference Protocol has no datatype for (sequences, maps, complex numbers): our backend refuses them when it opens them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.backends.base import get_backend
from runtime.backends.datatypes import BYTES, NUMPY_TYPES
from tests.runtime.backends.node_cases import NodeCase, Run, node_cases, passes

EVERYDAY = 25
"""Every so manieth case in the everyday suite; all of them in `make test-all`."""
SERVED = set(NUMPY_TYPES.values())
TEXT = "OSU"
"""Kinds of NumPy types that ONNX's cases hold strings in; ours are objects, each a `bytes`."""


def bare_onnxruntime(path: Path, inputs: Mapping[str, Any]) -> list[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(inputs)))


def bare_openvino(path: Path, inputs: Mapping[str, Any]) -> list[Any]:
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled.create_infer_request().infer(dict(inputs))
    return [results[index] for index in range(len(compiled.outputs))]


BARE: dict[str, Run] = {"onnxruntime": bare_onnxruntime, "openvino": bare_openvino}


def through_ours(engine: str) -> Run:
    def run(path: Path, inputs: Mapping[str, Any]) -> list[Any]:
        model = get_backend(engine).load(path, {})
        try:
            found = model.infer({name: as_bytes(value) for name, value in inputs.items()})
            return [as_text(value) for value in found.values()]
        finally:
            model.close()

    return run


def as_bytes(value: Any) -> Any:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in TEXT:
        return value
    raw = np.empty(value.shape, BYTES)
    raw.flat = [str(element).encode() for element in value.flat]
    return raw


def as_text(value: np.ndarray) -> np.ndarray:
    if value.dtype != BYTES:
        return value
    texts = np.empty(value.shape, BYTES)
    texts.flat = [element.decode() for element in value.flat]
    return texts


def perturbed(engine: str) -> Run:
    """The control: our backend with one element of its first output changed by more than any tolerance."""

    def run(path: Path, inputs: Mapping[str, Any]) -> list[Any]:
        first, *others = through_ours(engine)(path, inputs)
        changed = np.array(first)
        if changed.dtype == BYTES:
            changed = changed + "?"
        elif changed.size:
            value = changed.flat[0]
            with np.errstate(all="ignore"):
                changed.flat[0] = not value if changed.dtype.kind == "b" else value + np.asarray(64, changed.dtype)
        return [changed, *others]

    return run


def is_served(case: NodeCase, engine: str) -> bool:
    """Whether all its tensors are of a datatype that this engine serves."""
    if not case.is_tensors:
        return False
    types = [np.asarray(value).dtype for value in (*case.inputs.values(), *case.outputs)]
    has_text = any(found.kind in TEXT for found in types)
    return not (has_text and engine == "openvino") and all(found in SERVED or found.kind in TEXT for found in types)


def passing(cases: Sequence[NodeCase], run: Run, folder: Path) -> set[str]:
    return {case.name for case in cases if passes(case, run, folder)}


def require_the_same(engine: str, cases: Sequence[NodeCase], folder: Path) -> set[str]:
    """The cases that pass in the bare engine and are served are exactly those that pass through our backend."""
    bare = passing(cases, BARE[engine], folder)
    ours = passing(cases, through_ours(engine), folder)
    served = {case.name for case in cases if is_served(case, engine)}
    assert ours == bare & served
    return ours


@pytest.mark.parametrize("engine", BARE)
def test_a_sample_of_the_node_cases_passes_as_in_the_bare_engine(engine: str, tmp_path: Path) -> None:
    cases = node_cases()[::EVERYDAY]
    ours = require_the_same(engine, cases, tmp_path)
    assert len(ours) > len(cases) / 2
    fragile = [case for case in cases if case.name in ours and np.asarray(case.outputs[0]).size]
    assert not passing(fragile, perturbed(engine), tmp_path), "a changed output must not pass"


@pytest.mark.slow
@pytest.mark.parametrize("engine", BARE)
def test_every_node_case_passes_as_in_the_bare_engine(engine: str, tmp_path: Path) -> None:
    """1,334 of 1,884 cases with onnxruntime 1.31, of which 23 have sequences or optional values at their ends and are refused."""
    cases = node_cases()
    assert len(require_the_same(engine, cases, tmp_path)) >= 1200
