"""What does MLPerf's own load generator say about an artifact?

The system under test is the artifact in its engine; LoadGen decides what is asked when, takes the times and judges whether the run was
valid under the settings given. Those are far shorter than the rules want, so VALID here is no MLPerf result.
Source: github.com/mlcommons/inference, loadgen/README.md and loadgen/test_settings.h.
"""

import queue
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from toolchain.benchmark import scenarios
from toolchain.benchmark.artifacts import Load, name_of
from toolchain.benchmark.device import Opened
from toolchain.benchmark.machine import Watch
from toolchain.errors import MissingError, StageError
from toolchain.package.read import Artifact

INSTALL = 'pip install "edgewright[loadgen]"'
_NAMES = {"single": "SingleStream", "multi": "MultiStream", "server": "Server", "offline": "Offline"}
_SUMMARY = "mlperf_log_summary.txt"
_SAMPLES = 64
"""How many examples LoadGen believes there are; all are the golden inputs over and over, for latency depends on none."""
_FEWEST_QUERIES = 100
_MARGIN = 1.2
_RATE_SHARE = 0.5
"""Of what our own search found: LoadGen judges one rate, and a rate at the edge would be VALID by luck."""


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """What LoadGen wrote. valid: its own judgement under `settings`; summary: its lines, "name : value", as they are."""

    valid: bool
    settings: dict[str, str]
    summary: dict[str, str]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """LoadGen's judgement of an artifact."""

    name: str
    variant: str
    engine: str
    scenario: str
    valid: bool
    settings: dict[str, str]
    summary: dict[str, str]
    conditions: dict[str, str]


def run_loadgen(artifact: Artifact, load: Load, rate: float | None) -> Verdict:
    """One run of `load.scenario`. rate: queries per second of the server scenario, None to have it searched for first.

    Raises MissingError without the package, StageError when the model fails under it.
    """
    opened = Opened(artifact.path, load.threads)
    with ExitStack() as stack, Watch() as watch:
        generated = generate(opened.infer(stack), load, rate, load.bound_ns or opened.manifest.limits.max_latency_ns)
    manifest = artifact.manifest.value
    return Verdict(
        name=name_of(artifact), variant=manifest.variant, engine=manifest.requires.engine, scenario=load.scenario or "",
        valid=generated.valid, settings=generated.settings, summary=generated.summary, conditions=watch.seen,
    )  # fmt: skip


def generate(infer: scenarios.Infer, load: Load, rate: float | None, bound_ns: int | None) -> Generated:
    """Let LoadGen ask anything that infers. Raises as `run_loadgen`."""
    generator = _import()
    with tempfile.TemporaryDirectory() as folder:
        settings, told = _settings(generator, infer, load, rate, bound_ns)
        summary = _run(generator, infer, settings, Path(folder), in_line=load.scenario == "server")
    return Generated(valid=summary.get("Result is") == "VALID", settings=told, summary=summary)


def _import() -> Any:
    try:
        import mlperf_loadgen
    except ImportError as error:
        raise MissingError(f"--loadgen needs MLPerf's generator: {INSTALL}") from error
    return mlperf_loadgen


def _settings(
    generator: Any, infer: scenarios.Infer, load: Load, rate: float | None, bound_ns: int | None
) -> tuple[Any, dict[str, str]]:
    """LoadGen's settings, and what they are in words."""
    typical = scenarios.single_stream(infer, load.duration_s / 10)["p90_ns"]
    settings = generator.TestSettings()
    settings.scenario = getattr(generator.TestScenario, _NAMES[load.scenario or "single"])
    settings.mode = generator.TestMode.PerformanceOnly
    settings.min_duration_ms = round(load.duration_s * 1000)
    settings.min_query_count = _FEWEST_QUERIES
    settings.single_stream_expected_latency_ns = typical
    settings.multi_stream_expected_latency_ns = typical * scenarios.STREAMS
    settings.multi_stream_samples_per_query = scenarios.STREAMS
    if load.scenario == "offline":  # it decides how many examples LoadGen asks for, so that they last the duration
        settings.offline_expected_qps = _MARGIN * scenarios.offline(infer, load.duration_s / 10)["samples_per_s"]
    told = {"duration": f"{load.duration_s:g} s", "least queries": str(_FEWEST_QUERIES)}
    if load.scenario == "server":
        searched = None if rate else scenarios.server(infer, load.duration_s / 2, bound_ns)
        bound = bound_ns or (searched["bound_ns"] if searched else scenarios.default_bound(typical))
        settings.server_target_qps = rate or max(1.0, _RATE_SHARE * searched["qps"] if searched else 1.0)
        settings.server_target_latency_ns = bound
        told |= {"target rate": f"{settings.server_target_qps:.1f}/s", "bound": f"{bound / 1e6:g} ms"}
    return settings, told


def _run(generator: Any, infer: scenarios.Infer, settings: Any, folder: Path, *, in_line: bool) -> dict[str, str]:
    """in_line: answer from a thread of its own, as Server needs: LoadGen's own thread has to go on asking."""
    errors: list[Exception] = []
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def respond(samples: Any) -> None:
        try:
            if not errors:
                _infer_all(infer, len(samples))
        except Exception as error:  # noqa: BLE001  # an exception through LoadGen's native code would end the process
            errors.append(error)
        generator.QuerySamplesComplete([generator.QuerySampleResponse(sample.id, 0, 0) for sample in samples])

    def serve() -> None:
        while (samples := waiting.get()) is not None:
            respond(samples)

    worker = threading.Thread(target=serve)
    worker.start()
    under_test = generator.ConstructSUT(waiting.put if in_line else respond, lambda: None)
    library = generator.ConstructQSL(_SAMPLES, _SAMPLES, lambda _: None, lambda _: None)
    logs = generator.LogSettings()
    logs.enable_trace = False
    logs.log_output.outdir = str(folder)
    logs.log_output.copy_summary_to_stdout = False
    try:
        generator.StartTestWithLogSettings(under_test, library, settings, logs, str(folder / "audit.config"))
    finally:
        waiting.put(None)
        worker.join()
        generator.DestroyQSL(library)
        generator.DestroySUT(under_test)
    if errors:
        raise StageError(f"the model failed under LoadGen: {errors[0]}") from errors[0]
    return read_summary((folder / _SUMMARY).read_text())


def _infer_all(infer: scenarios.Infer, count: int) -> None:
    """In batches the inputs were prepared for."""
    for size in (scenarios.OFFLINE_BATCH, scenarios.STREAMS, 1):
        while count >= size:
            infer(size)
            count -= size


def read_summary(text: str) -> dict[str, str]:
    """The lines "name : value" of LoadGen's summary, up to its settings."""
    pairs = (line.split(":", 1) for line in text.split("Test Parameters Used", maxsplit=1)[0].splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}
