"""What can this host train, compress, convert, run, measure and ship, and why not the rest?

Nothing heavy is imported: presence and version come from the installed packages' metadata, engines answer for themselves.
"""

import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import msgspec

from runtime.backends import tensorrt
from runtime.backends.base import backend_names, get_backend
from runtime.errors import DaemonError
from toolchain.benchmark.energy import find_meter
from toolchain.compress.base import Scheme
from toolchain.compress.schemes import LADDERS, SCHEMES
from toolchain.pipeline.stage import ABSENT, tool_version
from toolchain.targets import load_profile, profile_names, this_host

Area = Literal["train", "convert", "compress", "scheme", "tune", "run", "TensorRT", "track", "measure", "ship", "measure for"]

_PACKAGES: tuple[tuple[Area, str, str], ...] = (
    ("train", "torch", "toolchain"),
    ("train", "torchvision", "toolchain"),
    ("convert", "onnx", "toolchain"),
    ("convert", "onnxscript", "toolchain"),
    ("convert", "openvino", "toolchain"),
    ("compress", "nncf", "toolchain"),
    ("compress", "neural-compressor", "toolchain"),
    ("compress", "torchao", "toolchain"),
    ("compress", "torch-pruning", "toolchain"),
    ("tune", "optuna", "toolchain"),
    ("track", "mlflow", "toolchain"),
    ("measure", "mlcommons-loadgen", "loadgen"),
    ("ship", "tuf", ""),
    ("ship", "httpx", "toolchain"),
)
_NEEDED = {"torch", "onnx", "onnxscript"}
_POWERCAP = Path("/sys/class/powercap")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing this host has or lacks. needed: without it no build from a torch network works; detail: version, or what to do."""

    area: Area
    name: str
    ok: bool
    detail: str
    needed: bool = False


def examine(folder: Path) -> list[Finding]:
    """Look around. folder: where profiles of one's own may lie, as beside a recipe. Never raises for what is missing."""
    engines = _engines()
    return [
        *(_package(*entry) for entry in _PACKAGES),
        _accelerator(),
        *engines,
        *_tensorrt(),
        *_schemes({engine.name: engine for engine in engines}),
        _energy(),
        *_profiles(folder),
    ]


def is_fit(findings: list[Finding]) -> bool:
    """Whether a whole build can run here: everything needed, and at least one engine that is meant for devices."""
    engines = [finding for finding in findings if finding.area == "run" and finding.name != "reference"]
    return all(finding.ok for finding in findings if finding.needed) and any(engine.ok for engine in engines)


def _package(area: Area, name: str, extra: str) -> Finding:
    try:
        return Finding(area=area, name=name, ok=True, detail=version(name), needed=name in _NEEDED)
    except PackageNotFoundError:
        install = f'pip install "edgewright[{extra}]"' if extra else "reinstall edgewright"
        return Finding(area=area, name=name, ok=False, detail=f"not installed: {install}", needed=name in _NEEDED)


def _accelerator() -> Finding:
    program = shutil.which("nvidia-smi")
    if program is None:
        return Finding(area="train", name="GPU", ok=False, detail="no NVIDIA driver found; training uses the CPU")
    return Finding(area="train", name="GPU", ok=True, detail=f"NVIDIA driver present ({program})")


def _engines() -> list[Finding]:
    found = []
    for name in backend_names():
        try:
            probe = get_backend(name).probe()
        except (DaemonError, ImportError) as error:  # a third party's backend may fail to import
            found.append(Finding(area="run", name=name, ok=False, detail=str(error)))
        else:
            found.append(Finding(area="run", name=name, ok=probe.ok, detail=probe.version if probe.ok else probe.reason))
    return found


def _tensorrt() -> list[Finding]:
    """What the engine consists of, piece by piece: its own line under "run" can only name the first that is missing."""
    return [Finding(area="TensorRT", name=piece.name, ok=piece.ok, detail=piece.detail) for piece in tensorrt.pieces()]


def _schemes(engines: dict[str, Finding]) -> list[Finding]:
    """Every way to make a variant: by which name `compress.schemes` calls it, when it is tried, and what it lacks here."""
    found = []
    for item in SCHEMES:
        name = f"{item.engine}-{item.name}"
        absent = [tool for tool in item.tools if tool_version(tool) == ABSENT]
        engine = engines.get(item.engine)
        if absent:
            detail = f'{", ".join(absent)} not installed: pip install "edgewright[toolchain]"'
        elif engine is None or not engine.ok:
            detail = f"engine {item.engine} is not usable here, see above; its variants are left out"
        else:
            versions = ", ".join(f"{tool} {tool_version(tool)}" for tool in item.tools)
            detail = f"{_when(item)}; by {versions}"
        found.append(Finding(area="scheme", name=name, ok=not absent and engine is not None and engine.ok, detail=detail))
    return found


def _when(item: Scheme) -> str:
    ladder = LADDERS.get(item.engine, ())
    if item.name in ladder[1:]:
        before = ladder[ladder.index(item.name) - 1]
        return f"tried where {item.engine}-{before} misses the metric's limit, or where compress.schemes names it"
    asked = "" if item.method is None else f' and method "{item.method}"'
    return f"tried for profiles with {item.precision}{asked}"


def _energy() -> Finding:
    if find_meter() is not None:
        return Finding(area="measure", name="energy counter", ok=True, detail="readable")
    hidden = any(not os.access(path, os.R_OK) for path in _POWERCAP.glob("intel-rapl:*/energy_uj"))
    detail = (
        "RAPL is there, for root alone: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
        if hidden
        else "none (neither RAPL nor a Jetson's rails, as in most virtual machines); energy is left out of the report"
    )
    return Finding(area="measure", name="energy counter", ok=False, detail=detail)


def _profiles(folder: Path) -> list[Finding]:
    """For which targets a latency measured here counts."""
    host, found = this_host(), []
    for name in profile_names(folder):
        profile = load_profile(name, folder)
        ok = host.fits(profile)
        if ok:
            unlike = host.why_unlike(profile, "int8")
            detail = f"but {unlike}" if unlike else "this host is such a device"
        elif host.arch != profile.arch:
            detail = (
                f"this host is {host.arch}, the profile {profile.arch}: its artifacts are built, their latency is not measured"
            )
        elif profile.accelerator and profile.accelerator not in host.accelerators:
            detail = f"this host has no {profile.accelerator}: its artifacts are built, their latency is not measured"
        else:
            missing = [" or ".join(group) for group in profile.instruction_sets if not host.flags & set(group)]
            detail = f"this CPU lacks {', '.join(missing)}"
        found.append(Finding(area="measure for", name=name, ok=ok, detail=detail))
    return found
