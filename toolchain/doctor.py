"""What can this host train, convert, run and ship, and why not the rest?

Nothing heavy is imported: presence and version come from the installed packages' metadata, engines answer for themselves.
"""

import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import msgspec

from runtime.backends.base import backend_names, get_backend
from runtime.errors import DaemonError
from toolchain.targets import load_profile, profile_names, this_host

Area = Literal["train", "convert", "run", "track", "ship", "measure for"]

_PACKAGES: tuple[tuple[Area, str, str], ...] = (
    ("train", "torch", "toolchain"),
    ("train", "torchvision", "toolchain"),
    ("convert", "onnx", "toolchain"),
    ("convert", "onnxscript", "toolchain"),
    ("convert", "openvino", "toolchain"),
    ("convert", "nncf", "toolchain"),
    ("track", "mlflow", "toolchain"),
    ("ship", "tuf", ""),
    ("ship", "httpx", "toolchain"),
)
_NEEDED = {"torch", "onnx", "onnxscript"}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing this host has or lacks. needed: without it no build from a torch network works; detail: version, or what to do."""

    area: Area
    name: str
    ok: bool
    detail: str
    needed: bool = False


def examine(folder: Path) -> list[Finding]:
    """Look around. folder: where profiles of one's own may lie, as beside a recipe. Never raises for what is missing."""
    return [*(_package(*entry) for entry in _PACKAGES), _accelerator(), *_engines(), *_profiles(folder)]


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
        else:
            missing = [" or ".join(group) for group in profile.instruction_sets if not host.flags & set(group)]
            detail = f"this CPU lacks {', '.join(missing)}"
        found.append(Finding(area="measure for", name=name, ok=ok, detail=detail))
    return found
