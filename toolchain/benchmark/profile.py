"""Where do time, memory and energy of each variant go, and which operators are to blame when int8 does not pay?

The figures of a profile explain; they never choose: an engine that counts its operators' time runs slower than one that does not.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np

from toolchain.benchmark.blame import why_slower
from toolchain.benchmark.energy import Meter, find_meter
from toolchain.benchmark.memory import STATUS
from toolchain.benchmark.operators import OPERATORS, Feed, Operator
from toolchain.benchmark.run import load
from toolchain.errors import StageError
from toolchain.pipeline.products import ProfiledModels, Variant
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.record import LatencyResult, LayerResult, ProfileResult
from toolchain.pipeline.stage import Stored

LAYERS = 40
"""More bars than that nobody reads."""
_ENERGY_NS = 300_000_000
_MEMORY_TIMEOUT_S = 120.0
_COMPRESSED = ("int8", "int4")


def profile(
    variants: Sequence[Stored[Variant]],
    rows: list[np.ndarray],
    threads: int,
    progress: Progress,
    *,
    latencies: Mapping[str, LatencyResult] | None = None,
    sys_root: Path = Path("/sys"),
) -> ProfiledModels:
    """Layers, peak memory and energy of each variant, one example at a time.

    rows: the inputs, of which one example is fed. latencies: say whether int8 pays; without them the operators' sums do.
    sys_root: where the kernel's counters lie. An engine that counts no operators gives no layers. Raises EngineError or StageError.
    """
    meter = find_meter(sys_root)
    operators: dict[str, list[Operator]] = {}
    results: dict[str, ProfileResult] = {}
    for done, variant in enumerate(variants, start=1):
        value = variant.value
        feed = _feed(value, rows)
        count = OPERATORS.get(value.engine)
        operators[value.name] = count(variant, feed, threads) if count else []
        results[value.name] = ProfileResult(
            layers=_layers(operators[value.name]),
            peak_bytes=peak_bytes(variant, feed, threads),
            energy_uj=_energy(variant, feed, threads, meter) if meter else None,
        )
        progress.tick(done, len(variants), value.name)
    for variant in variants:
        plain = _float_of(variant.value, [each.value for each in variants])
        if plain and not _pays(variant.value.name, plain.name, operators, latencies):
            blame = why_slower(operators[variant.value.name], operators[plain.name])
            results[variant.value.name] = msgspec.structs.replace(results[variant.value.name], blame=blame)
    return ProfiledModels(profiles=results)


def peak_bytes(variant: Stored[Variant], feed: Feed, threads: int) -> int | None:
    """Of memory, by a fresh process that opens and runs the model; None where the system does not count it so."""
    if not STATUS.exists():
        return None
    value = variant.value
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, **feed)  # type: ignore[arg-type]  # NumPy's stub takes every keyword for its own options
        question = {
            "engine": value.engine,
            "model": str(variant.folder / value.model_file),
            "options": {**value.engine_options, "threads": threads},
            "inputs": str(inputs),
        }
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "toolchain.benchmark.memory"],
                input=json.dumps(question), capture_output=True, text=True, timeout=_MEMORY_TIMEOUT_S, check=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise StageError(f"measuring the memory of {value.name} took longer than {_MEMORY_TIMEOUT_S:g} s") from error
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip().splitlines() or [f"status {error.returncode}"])[-1]
            raise StageError(f"measuring the memory of {value.name} failed: {last}") from error
    return int(json.loads(ended.stdout))


def _feed(variant: Variant, rows: list[np.ndarray]) -> Feed:
    size = max(1, variant.inputs[0].shape[0])
    return {spec.name: np.ascontiguousarray(array[:size]) for spec, array in zip(variant.inputs, rows, strict=True)}


def _layers(operators: Sequence[Operator]) -> tuple[LayerResult, ...]:
    total = max(1, sum(operator.ns for operator in operators))
    slowest = sorted(operators, key=lambda operator: (-operator.ns, operator.name))[:LAYERS]
    return tuple(LayerResult(name=each.name, operator=each.label, ns=each.ns, share=each.ns / total) for each in slowest)


def _energy(variant: Stored[Variant], feed: Feed, threads: int, meter: Meter) -> int | None:
    with closing(load(variant, {"threads": threads})) as model:
        model.infer(feed)
        return meter.measure(lambda: model.infer(feed), _ENERGY_NS)


def _float_of(variant: Variant, variants: Sequence[Variant]) -> Variant | None:
    """What a compressed variant is held against: the same form of the network, in floats, in the same engine."""
    if variant.precision not in _COMPRESSED:
        return None
    same = [item for item in variants if item.engine == variant.engine and item.form == variant.form]
    return next((item for item in same if item.precision == "float32"), None)


def _pays(
    name: str, plain: str, operators: Mapping[str, Sequence[Operator]], latencies: Mapping[str, LatencyResult] | None
) -> bool:
    """Whether it is surely faster: by intervals where there are latencies, else by the sums of the operators' times."""
    if latencies and name in latencies and plain in latencies:
        return latencies[name].ratio_low > latencies[plain].ratio_high
    own, other = (sum(operator.ns for operator in operators[each]) for each in (name, plain))
    return own < other
