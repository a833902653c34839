"""What is each kind of device, and is this machine one of them?

Profiles are data: `toolchain/profiles/NAME.toml`, or NAME.toml beside the recipe for one's own. A figure counts for a target only
if it was measured on a device of its profile.
"""

import difflib
import os
import platform
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from runtime.backends.accelerators import accelerators
from toolchain.errors import RecipeError

CPUINFO = Path("/proc/cpuinfo")
_OWN = Path(__file__).parent / "profiles"
_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}

Precision = Literal["float32", "bfloat16", "float16", "int8", "int4"]


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of device. instruction_sets: groups of CPU flags as Linux spells them, of each of which it has at least one.

    accelerator: what it has beside its CPU, as `runtime.backends.accelerators` names it; a host without one is no such device.
    engines, precisions: in the order of preference where latencies cannot be told apart. int8_weight_bits: what integer
    arithmetic without saturation allows. int8_unlike: CPU flags that make int8 latencies incomparable with this profile's.
    """

    arch: Literal["x86_64", "aarch64"]
    accelerator: Literal["", "intel-npu", "tegra234"] = ""
    instruction_sets: tuple[tuple[str, ...], ...] = ()
    engines: Annotated[tuple[str, ...], Meta(min_length=1)]
    precisions: Annotated[tuple[Precision, ...], Meta(min_length=1)]
    threads: Annotated[int, Meta(ge=1)] = 1
    memory_bytes: Annotated[int, Meta(ge=0)] = 0
    int8_weight_bits: Literal[7, 8] = 8
    int8_unlike: tuple[str, ...] = ()
    notes: str = ""
    sources: tuple[str, ...] = ()

    @property
    def required_flags(self) -> tuple[str, ...]:
        """The flags no device of this profile can lack; a choice between several cannot be demanded in a manifest."""
        return tuple(group[0] for group in self.instruction_sets if len(group) == 1)


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """This machine, as far as a latency depends on it."""

    arch: str
    cpu: str
    flags: frozenset[str]
    cores: int
    accelerators: frozenset[str] = frozenset()

    def fits(self, profile: Profile) -> bool:
        """Whether this machine is a device of the profile, so that what it measures counts."""
        return (
            self.arch == profile.arch
            and (not profile.accelerator or profile.accelerator in self.accelerators)
            and all(self.flags & set(group) for group in profile.instruction_sets)
        )

    def why_unlike(self, profile: Profile, precision: str) -> str:
        """Why a latency measured here says nothing about the profile although the host fits it; "" where it does."""
        if precision != "int8":
            return ""
        found = sorted(self.flags & set(profile.int8_unlike))
        return f"int8 was measured with {', '.join(found)}, which this profile does not promise" if found else ""

    def describe(self) -> dict[str, str]:
        return {
            "arch": self.arch,
            "cpu": self.cpu,
            "cores": str(self.cores),
            "system": f"{platform.system()} {platform.release()}",
        }


def profile_names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted({path.stem for place in (_OWN, folder / "profiles") for path in place.glob("*.toml")}))


def load_profile(name: str, folder: Path) -> Profile:
    """A profile by name; one in `profiles/` beside the recipe goes first. Raises RecipeError."""
    for place in (folder / "profiles", _OWN):
        path = place / f"{name}.toml"
        if path.is_file():
            try:
                return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Profile)
            except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
                raise RecipeError(f"{path}: {error}") from error
    known = profile_names(folder)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    raise RecipeError(f"target.profile: no profile {name!r}; {hint}")


def this_host(cpuinfo: Path = CPUINFO) -> Host:
    machine = platform.machine().lower()
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return Host(
        arch=_ARCHITECTURES.get(machine, machine),
        cpu=_first(lines, "model name") or platform.processor() or "unknown",
        flags=frozenset((_first(lines, "flags") or _first(lines, "features")).split()),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        accelerators=accelerators(),
    )


def _first(lines: list[str], key: str) -> str:
    return next((line.partition(":")[2].strip() for line in lines if line.lower().startswith(key)), "")
