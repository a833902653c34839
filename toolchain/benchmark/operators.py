"""How long does each operator of a variant take inside its engine?

Engines count only when told so before a model is opened, which no device does: these sessions are the profile's own, with the
options the variant is served with. An engine that is not listed in `OPERATORS` tells nothing.
"""

import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from runtime.backends.base import parse_options
from runtime.contract.artifact import OptionValue
from toolchain.errors import StageError
from toolchain.pipeline.products import Variant
from toolchain.pipeline.stage import Stored

Feed = Mapping[str, np.ndarray]

SPAN_NS = 150_000_000
WARM_UP, FEWEST, MOST = 10, 10, 1000
_ATTEMPTS = 2
_INT8 = re.compile(r"_(i8|u8|s8)$", re.IGNORECASE)
_FAMILY = re.compile(r"^(QLinear|Fused|Q(?=[A-Z]))|(Integer(ToFloat)?|Quantized(Legacy)?|NBits)$")


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """One operator as the engine runs it. kind: the engine's own word; integer: whether it computes in 8-bit integers."""

    name: str
    kind: str
    ns: int
    integer: bool

    @property
    def family(self) -> str:
        """The same for a float operator and its quantized form: QLinearConv, ConvInteger and FusedConv are all Conv."""
        return _FAMILY.sub("", _FAMILY.sub("", self.kind))

    @property
    def label(self) -> str:
        return f"{self.kind}, int8" if self.integer and self.family == self.kind else self.kind


def _onnxruntime(variant: Stored[Variant], feed: Feed, threads: int) -> list[Operator]:
    """From the trace that `enable_profiling` writes. Its times are whole microseconds, so a mean says more than a median."""
    import onnxruntime

    from runtime.backends.onnxruntime import OnnxRuntimeOptions, session_options

    options = session_options(onnxruntime, _options(OnnxRuntimeOptions, variant, threads))
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "trace")
        path = str(variant.folder / variant.value.model_file)
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            _repeat(lambda: session.run(None, dict(feed)))
            events = json.loads(Path(session.end_profiling()).read_bytes())
        except Exception as error:
            raise StageError(f"onnxruntime cannot profile {variant.value.name}: {_first_line(error)}") from error
    times: dict[str, list[int]] = {}
    kinds: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            times.setdefault(name, []).append(event["dur"])
            kinds[name] = event["args"]["op_name"]
    return [
        Operator(name=name, kind=kinds[name], ns=_trimmed_mean(found[WARM_UP:]), integer=_is_integer(kinds[name]))
        for name, found in times.items()
    ]


def _openvino(variant: Stored[Variant], feed: Feed, threads: int) -> list[Operator]:
    """From PERF_COUNT. Its times are means over all runs since the model was opened, the slow first one too: that is taken out.

    A mean keeps what a preemption added, so the quietest of a few attempts counts.
    """
    attempts = [_openvino_once(variant, feed, threads) for _ in range(_ATTEMPTS)]
    return min(attempts, key=lambda found: sum(operator.ns for operator in found))


def _openvino_once(variant: Stored[Variant], feed: Feed, threads: int) -> list[Operator]:
    import openvino

    from runtime.backends.openvino import OpenVinoOptions, compile_file, properties

    options = _options(OpenVinoOptions, variant, threads)
    path = variant.folder / variant.value.model_file
    try:
        compiled, _ = compile_file(openvino, path, properties(options) | {"PERF_COUNT": True}, options.batch)
        request = compiled.create_infer_request()
        for _ in range(WARM_UP):
            request.infer(dict(feed), share_inputs=True)
        first = {info.node_name: _ns(info) for info in request.get_profiling_info()}
        count = WARM_UP + _repeat(lambda: request.infer(dict(feed), share_inputs=True))
        infos = [info for info in request.get_profiling_info() if info.exec_type not in ("", "unknown", "undef")]
    except Exception as error:
        raise StageError(f"openvino cannot profile {variant.value.name}: {_first_line(error)}") from error
    return [
        Operator(
            name=info.node_name,
            kind=info.node_type,
            ns=max(0, round((_ns(info) * count - first.get(info.node_name, 0) * WARM_UP) / (count - WARM_UP))),
            integer=bool(_INT8.search(info.exec_type)),
        )
        for info in infos
        if _ns(info) > 0
    ]


Counter = Callable[[Stored[Variant], Feed, int], list[Operator]]
OPERATORS: dict[str, Counter] = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def _options(kind: Any, variant: Stored[Variant], threads: int) -> Any:
    options: dict[str, OptionValue] = {**variant.value.engine_options, "threads": threads}
    return parse_options(kind, options, variant.value.engine)


def _repeat(call: Callable[[], Any]) -> int:
    """Call for SPAN_NS, within bounds; the first WARM_UP calls may be left out. Returns how many it were."""
    start, count = time.perf_counter_ns(), 0
    while count < FEWEST + WARM_UP or (time.perf_counter_ns() - start < SPAN_NS and count < MOST):
        call()
        count += 1
    return count


def _trimmed_mean(microseconds: list[int]) -> int:
    """In ns, over the faster three quarters: a preempted operator would otherwise count a thousandfold."""
    kept = np.sort(np.asarray(microseconds))[: max(1, len(microseconds) * 3 // 4)]
    return round(float(kept.mean()) * 1000)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _is_integer(kind: str) -> bool:
    return kind.startswith(("QLinear", "QGemm", "QAttention")) or "Integer" in kind


def _ns(info: Any) -> int:
    nanoseconds: int = round(info.real_time.total_seconds() * 1e9)
    return nanoseconds
