"""Does the model compute here what it computed where it was built?

The golden file holds inputs, the outputs expected of them, and a tolerance: |y - out| <= atol + rtol * |out| everywhere.
A classifier must also name the same class wherever the expected margin exceeds that tolerance.
"""

import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from runtime.backends.base import LoadedModel
from runtime.backends.fallback import expected_engine, open_engine
from runtime.contract.artifact import GOLDEN_NAME, MANIFEST_NAME, Manifest, read_manifest
from runtime.errors import SelfTestError
from runtime.update.memory_fit import Growth

LATENCY_BUDGET_S = 2.0


def run_self_test(directory: Path, repeats: int) -> dict[str, int]:
    """Load the artifact's model in this process and hold it against its golden outputs and latency limit.

    Returns what was seen: golden rows, p50/p90/p99 nanoseconds of single inferences, and the memory that the engine and then
    the model took, as of `Growth`. Raises SelfTestError or EngineError.
    """
    manifest = read_manifest((directory / MANIFEST_NAME).read_bytes()).value
    expected, tolerance = read_golden(directory / GOLDEN_NAME, manifest)
    growth = Growth()
    engine = expected_engine(manifest).name
    if find_spec(engine) is not None:  # an engine's package bears its name; one that does not counts with the model
        with suppress(ImportError):  # opening says it better
            import_module(engine)
    memory = growth.lap("engine")
    model = open_engine(manifest, directory).model  # in the engine that will serve, be it the first or a fallback
    try:
        rows = 0
        for inputs, outputs in golden_batches(expected, manifest):
            compare(model.infer(inputs), outputs, tolerance, manifest)
            rows += len(next(iter(outputs.values())))
        first = next(golden_batches(expected, manifest, one_row=True))[0]
        figures = measure(model, first, repeats)
        memory |= growth.lap("model")
    finally:
        model.close()
    limit = manifest.limits.max_latency_ns
    if limit is not None and figures["p50_ns"] > limit:
        raise SelfTestError(f"median latency {figures['p50_ns']} ns is over the limit of {limit} ns")
    return {"rows": rows, **figures, **memory}


def read_golden(path: Path, manifest: Manifest) -> tuple[dict[str, np.ndarray], tuple[float, float]]:
    """The golden arrays by "in.NAME" and "out.NAME", and (rtol, atol). Raises SelfTestError when it does not fit the manifest."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        rtol, atol = arrays.pop("tolerance").tolist()
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SelfTestError(f"{GOLDEN_NAME} is not a golden file: {error}") from error
    wanted = {f"in.{spec.name}" for spec in manifest.inputs} | {f"out.{spec.name}" for spec in manifest.outputs}
    if wanted != set(arrays):
        raise SelfTestError(f"{GOLDEN_NAME} has arrays {sorted(arrays)} instead of {sorted(wanted)}")
    if len({len(array) for array in arrays.values()}) != 1 or not len(next(iter(arrays.values()))):
        raise SelfTestError(f"{GOLDEN_NAME}: arrays differ in their number of rows, or have none")
    return arrays, (rtol, atol)


def golden_batches(
    arrays: dict[str, np.ndarray], manifest: Manifest, *, one_row: bool = False
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Golden inputs and outputs in batches the model takes: all rows at once where the batch is free, else its fixed size."""
    total = len(next(iter(arrays.values())))
    fixed = manifest.inputs[0].shape[0] if manifest.inputs[0].shape else -1
    size = fixed if fixed > 0 else (1 if one_row else total)
    for start in range(0, total - size + 1, size):
        rows = slice(start, start + size)
        yield (
            {spec.name: arrays[f"in.{spec.name}"][rows] for spec in manifest.inputs},
            {spec.name: arrays[f"out.{spec.name}"][rows] for spec in manifest.outputs},
        )


def compare(
    found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: tuple[float, float], manifest: Manifest
) -> None:
    """Raise SelfTestError where an output is outside the tolerance, of another shape, or names another class."""
    rtol, atol = tolerance
    for name, want in expected.items():
        have = found.get(name)
        if have is None or have.shape != want.shape:
            raise SelfTestError(f"output {name!r} has shape {None if have is None else have.shape} instead of {want.shape}")
        slack = atol + rtol * np.abs(want.astype(np.float64))
        gap = np.abs(have.astype(np.float64) - want.astype(np.float64))
        if not np.all(gap <= slack):  # a NaN fails too
            raise SelfTestError(f"output {name!r} is off by up to {np.max(gap):.3g}, allowed is {np.max(slack):.3g}")
        if manifest.output_kind == "classification" and name == manifest.outputs[0].name and want.ndim == 2 and want.shape[1] > 1:
            _compare_classes(have, want, slack)


def measure(model: LoadedModel, inputs: dict[str, np.ndarray], repeats: int) -> dict[str, int]:
    """Latency of `repeats` inferences one after the other, fewer when they take longer than the budget."""
    taken: list[int] = []
    stop = time.monotonic() + LATENCY_BUDGET_S
    while len(taken) < repeats and (not taken or time.monotonic() < stop):
        begin = time.perf_counter_ns()
        model.infer(inputs)
        taken.append(time.perf_counter_ns() - begin)
    p50, p90, p99 = np.quantile(taken, [0.5, 0.9, 0.99]).astype(int).tolist()
    return {"samples": len(taken), "p50_ns": p50, "p90_ns": p90, "p99_ns": p99}


def _compare_classes(have: np.ndarray, want: np.ndarray, slack: np.ndarray) -> None:
    top = np.sort(want, axis=1)
    is_clear = top[:, -1] - top[:, -2] > np.max(slack, axis=1)
    differing = is_clear & (np.argmax(have, axis=1) != np.argmax(want, axis=1))
    if np.any(differing):
        raise SelfTestError(f"{int(np.sum(differing))} of {len(want)} golden rows get another class")
