"""ONNX's own node tests: one small graph an operator, with inputs and the outputs the specification asks for."""

import functools
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

Run = Callable[[Path, Mapping[str, Any]], list[Any]]
"""Opens a model file and runs it once on inputs by name; its outputs in the graph's order."""


class NodeCase(NamedTuple):
    """is_tensors: whether every input and output is a tensor; sequences, optional values and maps have no place in the protocol."""

    name: str
    model: onnx.ModelProto
    inputs: dict[str, Any]
    outputs: list[Any]
    is_tensors: bool


@functools.cache
def node_cases() -> tuple[NodeCase, ...]:
    """All of them, some 1,900; they take seconds to make."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its generators overflow and divide by zero on purpose
        found = collect_testcases(None)
    return tuple(_case(each) for each in found if each.model is not None)


def passes(case: NodeCase, run: Run, folder: Path) -> bool:
    """Whether the engine gives what the specification asks for; whatever it raises is a failure."""
    path = folder / f"{case.name}.onnx"
    onnx.save(case.model, path)
    try:
        answers = run(path, case.inputs)
    except Exception:  # noqa: BLE001 - what an engine raises for an operator it lacks has no common type
        return False
    finally:
        path.unlink()
    return len(answers) == len(case.outputs) and all(_same(*pair) for pair in zip(answers, case.outputs, strict=True))


def _case(found: Any) -> NodeCase:
    graph = found.model.graph
    constants = {tensor.name for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in constants]
    inputs, outputs = found.data_sets[0]
    is_tensors = all(value.type.HasField("tensor_type") for value in (*graph.input, *graph.output))
    return NodeCase(found.name, found.model, dict(zip(names, inputs, strict=False)), list(outputs), is_tensors)


def _same(answer: Any, wanted: Any) -> bool:
    """Within the tolerance of ONNX's own runner (1e-3 relative, 1e-7 absolute); types and shapes exactly."""
    if isinstance(wanted, list):
        return isinstance(answer, list) and len(answer) == len(wanted) and all(map(_same, answer, wanted))
    if wanted is None or answer is None:
        return answer is wanted
    answer, wanted = np.asarray(answer), np.asarray(wanted)
    if answer.shape != wanted.shape:
        return False
    if wanted.dtype.kind in "OSU":
        return bool((answer.astype(str) == wanted.astype(str)).all())
    if answer.dtype != wanted.dtype:
        return False
    with np.errstate(all="ignore"):  # NaN and infinity are right answers here
        if wanted.dtype.kind != "c":
            answer, wanted = answer.astype(np.float64), wanted.astype(np.float64)
        return np.allclose(answer, wanted, rtol=1e-3, atol=1e-7, equal_nan=True)
