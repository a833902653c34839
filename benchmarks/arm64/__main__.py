"""`python -m benchmarks.arm64 [--package DEB] [--cpu NAME...] [--json FILE]`: does 64-bit Arm compute what x86 computes?

Builds the digits recipe for generic-arm64 and the arm64 Debian package, unpacks that into a fresh root, and has qemu run it:
doctor, side-load with all checks and the self-test in its helper process, daemon. Every golden input then goes over HTTP to the
emulated daemon and, in this process, through the engine of this machine. Exit 3 when an output differs by more than 1e-4,
1 when a step fails, 5 when this machine lacks what it needs, which is said.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.arm64.device import Arm64Device, DeviceFailedError, infer, make_device_root
from benchmarks.arm64.root import CannotRunError
from benchmarks.demo.local_fleet import QUICK, RECIPE, command, free_port
from benchmarks.figures import Figure, show
from runtime.backends.base import get_backend
from runtime.contract.artifact import GOLDEN_NAME, MANIFEST_NAME, Manifest, read_manifest
from runtime.packaging import build_deb
from runtime.update.selftest import golden_batches, read_golden
from tests.support.store import ReleaseStore

PROFILE = "generic-arm64"
TOLERANCE = 1e-4
# A Raspberry Pi 5's core, and every extension qemu knows (SVE, i8mm, bf16): other kernels, same answers.
CPUS = ("cortex-a76", "max")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arm64", description=__doc__)
    parser.add_argument("--package", type=Path, help="an arm64 package that is there already (default: build it)")
    parser.add_argument("--cpu", nargs="+", default=CPUS, help="cores that qemu plays, one run each")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="edgewright-arm64-") as folder:
            figures = list(measure(Path(folder), options.package, options.cpu))
    except CannotRunError as error:
        print(f"arm64: cannot run here: {error}", file=sys.stderr)
        return 5
    except DeviceFailedError as error:
        print(f"arm64: {error}", file=sys.stderr)
        return 1
    return show(figures, options.json)


def measure(folder: Path, package: Path | None, cpus: list[str]) -> Iterator[Figure]:
    say("a fresh arm64 root, and the package in it")
    package = package or build_package(folder / "deb")
    root = folder / "root"
    make_device_root(root, package)
    artifact = build_digits(folder)
    releases = ReleaseStore()
    manifest = read_manifest((artifact / MANIFEST_NAME).read_bytes()).value
    releases.publish(artifact, manifest.model)
    releases.write_bundle(root / "tmp" / "digits.edge")
    (root / "tmp" / "root.json").write_bytes(releases.root)
    inputs, here = answers_here(artifact, manifest)
    device = Arm64Device(root, cpus[0])
    doctor = {finding["what"]: finding for finding in json.loads(device.run("doctor", "--json"))}
    say(f"device: {doctor['device']['detail']}; {doctor['engines']['detail'].split(';')[0]}")
    if not doctor["device"]["detail"].startswith("aarch64"):
        raise DeviceFailedError(f"the device is no arm64 one: {doctor['device']['detail']}")
    begin = time.monotonic()
    device.run("install", "/tmp/digits.edge", "--root", "/tmp/root.json")
    say(f"side-loaded: verified, self-tested and switched on arm64 in {time.monotonic() - begin:.0f} s")
    for cpu in cpus:
        yield from compare(Arm64Device(root, cpu), manifest, inputs, here)


def compare(
    device: Arm64Device, manifest: Manifest, inputs: list[dict[str, np.ndarray]], here: list[dict[str, np.ndarray]]
) -> Iterator[Figure]:
    """Serve on this core and hold every output against this machine's."""
    port = free_port()
    try:
        start_s = device.start(port)
        there = [infer(port, manifest.model, batch) for batch in inputs]
    finally:
        device.stop()
    worst = largest_difference(there, here)
    rows = sum(len(next(iter(batch.values()))) for batch in inputs)
    yield Figure(
        name=f"arm64 {device.cpu}, largest difference to x86",
        value=worst / TOLERANCE,
        unit="1e-4",
        limit=1,
        how=f"{manifest.model} {manifest.version}, {rows} golden rows, {worst:.2g}",
    )
    yield Figure(name=f"arm64 {device.cpu}, emulated start", value=start_s, unit="s")


def largest_difference(there: list[dict[str, np.ndarray]], here: list[dict[str, np.ndarray]]) -> float:
    """Over all outputs of all batches; infinite where one is missing, of another shape, or no number."""
    worst = 0.0
    for theirs, ours in zip(there, here, strict=True):
        for name, want in ours.items():
            have = theirs.get(name)
            if have is None or have.shape != want.shape or not (np.isfinite(have).all() and np.isfinite(want).all()):
                return float("inf")
            worst = max(worst, float(np.max(np.abs(have.astype(np.float64) - want))))
    return worst


def answers_here(artifact: Path, manifest: Manifest) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
    """Golden inputs in batches the model takes, and what the engine of this machine answers."""
    arrays, _ = read_golden(artifact / GOLDEN_NAME, manifest)
    inputs = [batch for batch, _ in golden_batches(arrays, manifest)]
    model = get_backend(manifest.requires.engine).load(artifact / manifest.model_file, manifest.engine_options)
    try:
        return inputs, [dict(model.infer(batch)) for batch in inputs]
    finally:
        model.close()


def build_digits(folder: Path) -> Path:
    """The recipe of the demo, for arm64. Nothing is measured: this host is no such device."""
    say("build digits for " + PROFILE)
    settings = [part for key, value in QUICK.items() for part in ("--set", f"{key}={value}")]
    target = ["--target", PROFILE, "--allow-unmeasured", "--out", str(folder / "out")]
    run_step([command("toolchain"), "build", str(RECIPE), *target, *settings])
    return next((folder / "out").glob(f"digits/*/{PROFILE}"))


def build_package(out: Path) -> Path:
    run_step([sys.executable, "-m", build_deb.__name__, "--arch", "arm64", "--out", str(out)])
    return next(out.glob("*_arm64.deb"))


def run_step(arguments: list[str]) -> None:
    """Raises CannotRunError with the last lines of a program that failed."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRunError(f"{Path(arguments[0]).name} {arguments[1]} failed: {(done.stderr or done.stdout).strip()[-500:]}")


def say(text: str) -> None:
    print(f"arm64: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
