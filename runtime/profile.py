"""What is this device, and which target profiles does it fit?

The table repeats the few facts of `toolchain/profiles/*.toml` that a device needs to find its own name; a test holds the
two together. Best first: an instruction set that makes int8 fast and exact comes before the plain architecture.
"""

import os
import platform
from pathlib import Path

import msgspec

from runtime.backends.accelerators import accelerators
from runtime.backends.base import backend_names, get_backend
from runtime.config import MIB, ProfileSettings
from runtime.contract.deployment import DeviceProfile

CPUINFO = Path("/proc/cpuinfo")
ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
# Flags that any artifact's requirements may name; a CPU lists some hundred more, and the report must stay small.
REPORTED_FLAGS = (
    "avx", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16", "fma", "sse4_2",
    "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve",
)  # fmt: skip


class TargetProfile(msgspec.Struct, frozen=True):
    """instruction_sets: groups of CPU flags; a device needs one of each. memory_bytes: the least a device has.

    accelerator: what it has beside its CPU, "" for nothing.
    """

    arch: str
    memory_bytes: int
    instruction_sets: tuple[tuple[str, ...], ...] = ()
    accelerator: str = ""


PROFILES: dict[str, TargetProfile] = {
    "intel-cpu-amx": TargetProfile("x86_64", 1024 * MIB, (("avx512_vnni", "avx_vnni"), ("amx_bf16", "avx512_bf16"))),
    "intel-cpu-vnni": TargetProfile("x86_64", 512 * MIB, (("avx512_vnni", "avx_vnni"),)),
    "x86-64-cpu": TargetProfile("x86_64", 512 * MIB),
    "intel-npu": TargetProfile("x86_64", 4096 * MIB, (), "intel-npu"),  # behind the CPUs: no backend opens the NPU yet
    "jetson-orin": TargetProfile("aarch64", 4096 * MIB, (("asimddp",),), "tegra234"),
    "raspberrypi5": TargetProfile("aarch64", 1024 * MIB, (("asimddp",),)),
    "generic-arm64": TargetProfile("aarch64", 512 * MIB),
}
# Linux keeps a share of the fitted memory to itself, and boards reserve some for the GPU: the least a device must show.
USABLE_SHARE = 0.8


def detect_profile(settings: ProfileSettings) -> DeviceProfile:
    """What this device offers, as the fleet's planner needs it. Probes engines without loading them."""
    arch = ARCHITECTURES.get(platform.machine().lower(), platform.machine().lower())
    flags = cpu_flags(CPUINFO)
    memory = settings.memory_bytes or memory_bytes()
    return DeviceProfile(
        profiles=settings.names or fitting_profiles(arch, flags, memory, accelerators()),
        arch=arch,
        engines=installed_engines(),
        instruction_sets=tuple(flag for flag in REPORTED_FLAGS if flag in flags),
        memory_bytes=memory,
    )


def fitting_profiles(
    arch: str, flags: frozenset[str], memory_bytes: int, beside: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """Names of the target profiles that a device with these properties fits, best first. beside: its accelerators."""
    return tuple(
        name
        for name, profile in PROFILES.items()
        if profile.arch == arch
        and (not profile.accelerator or profile.accelerator in beside)
        and all(flags & set(group) for group in profile.instruction_sets)
        and memory_bytes >= USABLE_SHARE * profile.memory_bytes
    )


def installed_engines() -> dict[str, str]:
    """Engines that can be used here, with their versions."""
    found = {name: get_backend(name).probe() for name in backend_names()}
    return {name: availability.version for name, availability in found.items() if availability.ok}


def cpu_flags(cpuinfo: Path) -> frozenset[str]:
    """Instruction-set flags as Linux spells them; empty where the file is absent or has none."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    listed = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return frozenset(listed.partition(":")[2].split())


def memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
