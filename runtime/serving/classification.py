"""What are the best classes of an output, as Triton's classification extension writes them?

Each is "value:index", and ":label" where the manifest names the classes. Source: Triton's extension_classification.md.
"""

import numpy as np

from runtime.backends.datatypes import numbers
from runtime.contract.artifact import TensorSpec
from runtime.errors import RequestError
from runtime.serving.strings import as_array


def best_classes(array: np.ndarray, spec: TensorSpec, count: int) -> np.ndarray:
    """The `count` largest entries of each example, best first: BYTES [n, count], or [count] of an output of one axis.

    Ties go to the lower index; NaN is the worst. Fewer when there are fewer entries. Raises RequestError for strings.
    """
    if spec.datatype == "BYTES":
        raise RequestError(f"output {spec.name!r} is BYTES, and strings have no best classes")
    values = numbers(array)
    rows = values.reshape(len(values), -1) if values.ndim > 1 else values.reshape(1, -1)
    width = rows.shape[1]
    form = "%f" if rows.dtype.kind == "f" else "%d"
    labels = spec.labels if len(spec.labels) == width else ()
    kept = min(count, width)
    found: list[bytes] = []
    for row in rows:
        for index in _descending(row)[:kept].tolist():
            label = f":{labels[index]}" if labels else ""
            found.append(f"{form % row[index]}:{index}{label}".encode())
    return as_array(found).reshape((len(rows), kept) if values.ndim > 1 else (kept,))


def _descending(row: np.ndarray) -> np.ndarray:
    """Indices, largest value first. Sorted backwards and turned round, so that no value has to be negated."""
    comparable = np.where(np.isnan(row), -np.inf, row) if row.dtype.kind == "f" else row
    order: np.ndarray = len(row) - 1 - np.argsort(comparable[::-1], kind="stable")[::-1]
    return order
