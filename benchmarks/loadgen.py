"""What does MLPerf's own load generator say of the in-process runtime, beside the bare session? As a table and as JSON.

    python -m benchmarks.loadgen [--seconds 10] [--json FILE]

Single stream and server, on the tiny model of `benchmarks.serving`, with the monitor on. The server scenario halves the
rate until the runtime's run is VALID under the latency bound, and then asks the bare session at that rate too. Needs the
extra [loadgen].
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, show
from benchmarks.serving import write_tiny_artifact
from runtime.api import Runtime
from runtime.backends.base import get_backend
from toolchain.benchmark import scenarios
from toolchain.benchmark.artifacts import Load
from toolchain.benchmark.loadgen import Generated, generate

SECONDS = 10.0
BOUND_NS = 10_000_000
"""Of the server scenario: what MLPerf asks of small image models, so that what is judged is queueing and not one late wake-up."""
HALVINGS = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="per run (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    return show(measure(arguments.seconds), arguments.json)


def measure(seconds: float = SECONDS) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        artifact = write_tiny_artifact(Path(folder) / "tiny")
        with Runtime() as runtime:
            manifest = runtime.open(artifact)
            bare = get_backend(manifest.requires.engine).load(artifact / manifest.model_file, manifest.engine_options)
            try:
                name, shape = manifest.inputs[0].name, manifest.inputs[0].shape[1:]
                return list(_figures(_infer(bare.infer, name, shape), _infer(runtime.infer, name, shape), seconds))
            finally:
                bare.close()


def _figures(bare: scenarios.Infer, runtime: scenarios.Infer, seconds: float) -> list[Figure]:
    single = Load(scenario="single", duration_s=seconds)
    figures = []
    latency = {}
    for way, infer in (("bare session", bare), ("in-process runtime", runtime)):
        found = generate(infer, single, None, None)
        latency[way] = int(found.summary["90.00 percentile latency (ns)"]) / 1000
        figures += [_valid(way, "SingleStream", found), Figure(name=f"{way}, SingleStream, p90", value=latency[way], unit="us")]
    ratio = latency["in-process runtime"] / latency["bare session"]
    figures.append(Figure(name="SingleStream, p90 / bare", value=ratio, unit="x", how="two runs, one after the other"))

    load = Load(scenario="server", duration_s=seconds, bound_ns=BOUND_NS)
    rate = scenarios.server(bare, seconds / 2, BOUND_NS)["qps"]
    for way, infer in (("in-process runtime", runtime), ("bare session", bare)):
        # LoadGen's own way through Python costs more than the model does, so the rate our generator found is far too high.
        found = generate(infer, load, rate, BOUND_NS)
        for _ in range(HALVINGS):
            if found.valid:
                break
            rate /= 2
            found = generate(infer, load, rate, BOUND_NS)
        p99_us = int(found.summary["99.00 percentile latency (ns)"]) / 1000
        asked = f"{rate:.0f} queries/s, bound {BOUND_NS / 1e6:g} ms"
        figures += [_valid(way, "Server", found), Figure(name=f"{way}, Server, p99", value=p99_us, unit="us", how=asked)]
    return figures


def _valid(way: str, scenario: str, found: Generated) -> Figure:
    how = "VALID" if found.valid else found.summary.get("Result is", "no result")
    return Figure(name=f"{way}, {scenario}, valid", value=float(found.valid), unit="", limit=1, at_most=False, how=how)


def _infer(infer: Callable[[dict[str, np.ndarray]], object], name: str, shape: tuple[int, ...]) -> scenarios.Infer:
    generator = np.random.default_rng(0)
    sizes = (1, scenarios.STREAMS, scenarios.OFFLINE_BATCH)
    feeds = {size: {name: generator.normal(size=(size, *shape)).astype(np.float32)} for size in sizes}
    return lambda count: infer(feeds[count])


if __name__ == "__main__":
    raise SystemExit(main())
