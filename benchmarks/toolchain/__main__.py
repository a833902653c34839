"""`python -m benchmarks.toolchain [--only NAME...] [--peer olive] [--json FILE]`: speed-ups, start, cold and no-op build.

Builds four networks from scratch for this machine and prints every variant's speed and what is claimed of them; exit 3 when a claim
does not hold. `--peer olive` lets Microsoft Olive, in an environment of its own, do the same work on the same float models.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks import rebuild, start
from benchmarks.figures import Figure, show
from benchmarks.process import run_measured
from benchmarks.toolchain.work import PROFILE, WORK, Work, never_slower, target_of
from toolchain.pipeline.record import BuildResult, TargetResult


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.toolchain", description=__doc__)
    names = [work.name for work in WORK]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these networks alone, without start and rebuild")
    parser.add_argument("--peer", choices=("olive",), help="also let this tool do the same work")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    figures: list[Figure] = []
    if options.only == names:  # first, for a process that is started takes over how large the one that starts it has been
        figures += [*start.measure(), *rebuild.measure()]
    with tempfile.TemporaryDirectory() as folder:
        for work in WORK:
            if work.name in options.only:
                figures += _measure(work, Path(folder), peer=bool(options.peer))
    return show(figures, options.json)


def _measure(work: Work, root: Path, *, peer: bool) -> Iterator[Figure]:
    print(f"building {work.name} ...", file=sys.stderr)
    recipe = work.prepare(root)
    out = root / f"{work.name}-out"
    command = [_program(), "build", str(recipe), "--out", str(out), "--set", f"target.profile={PROFILE}"]
    for change in work.changes:
        command += ["--set", change]
    cold = run_measured(command, {"EDGEWRIGHT_CACHE": str(root / f"{work.name}-cache"), "EDGEWRIGHT_TRACKING": "off"})
    if cold.exit_code:
        raise RuntimeError(f"`{' '.join(command)}` ended with {cold.exit_code}")
    result = msgspec.json.decode(next(out.rglob("report.json")).read_bytes(), type=BuildResult)
    target = target_of(result)
    _tell(work, target, cold.wall_s)
    yield from work.claims(target)
    yield never_slower(work, target)
    yield Figure(name=f"{work.name}: cold build", value=cold.wall_s, unit="s", how=f"{len(target.variants)} variants")
    if peer:
        from benchmarks.toolchain.peer import compare

        yield from compare(work, target, root)


def _tell(work: Work, target: TargetResult, seconds: float) -> None:
    """Every variant of one build, the fastest first."""
    print(f"\n{work.name}: {len(target.variants)} variants in {seconds:.0f} s; chosen {target.chosen}: {target.reason}")
    measured = [(each, each.latency) for each in target.variants if each.latency is not None]
    for each, latency in sorted(measured, key=lambda pair: -pair[1].ratio):
        interval = f"{latency.ratio_low:.2f} to {latency.ratio_high:.2f}"
        print(
            f"  {each.name:36} {latency.p50_ns / 1000:9.1f} us  {latency.ratio:6.2f}x ({interval})  {each.size_bytes / 1000:9.1f} kB"
        )


def _program() -> str:
    return str(Path(sys.executable).with_name("toolchain"))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
