"""Does a device find its own names, and do both sides mean the same by them?"""

import tomllib
from pathlib import Path

import pytest

from runtime.config import ProfileSettings
from runtime.profile import PROFILES, REPORTED_FLAGS, cpu_flags, detect_profile, fitting_profiles

TOOLCHAIN_PROFILES = Path(__file__).parents[2] / "toolchain" / "profiles"
GIB = 1 << 30


def test_the_table_says_what_the_toolchains_profiles_say():
    theirs = {path.stem: tomllib.loads(path.read_text()) for path in TOOLCHAIN_PROFILES.glob("*.toml")}
    assert set(theirs) == set(PROFILES)
    for name, profile in PROFILES.items():
        assert profile.arch == theirs[name]["arch"]
        assert [list(group) for group in profile.instruction_sets] == theirs[name].get("instruction_sets", [])
        assert profile.accelerator == theirs[name].get("accelerator", "")
        assert profile.memory_bytes == theirs[name]["memory_bytes"]
        assert {flag for group in profile.instruction_sets for flag in group} <= set(REPORTED_FLAGS)


@pytest.mark.parametrize(
    ("name", "arch", "flags", "memory", "expected"),
    [
        ("old server", "x86_64", {"avx", "avx2"}, 4 * GIB, ("x86-64-cpu",)),
        ("ice lake", "x86_64", {"avx2", "avx512_vnni"}, 4 * GIB, ("intel-cpu-vnni", "x86-64-cpu")),
        ("alder lake", "x86_64", {"avx2", "avx_vnni"}, 4 * GIB, ("intel-cpu-vnni", "x86-64-cpu")),
        ("zen 4", "x86_64", {"avx512_vnni", "avx512_bf16"}, 4 * GIB, ("intel-cpu-amx", "intel-cpu-vnni", "x86-64-cpu")),
        ("bf16 without int8", "x86_64", {"avx512_bf16"}, 4 * GIB, ("x86-64-cpu",)),
        ("pi 5", "aarch64", {"asimd", "asimddp"}, 4 * GIB, ("raspberrypi5", "generic-arm64")),
        ("pi 5 of 1 GB as Linux shows it", "aarch64", {"asimddp"}, int(0.92 * GIB), ("raspberrypi5", "generic-arm64")),
        ("small new board", "aarch64", {"asimddp"}, GIB // 2, ("generic-arm64",)),
        ("pi 3", "aarch64", {"asimd"}, GIB, ("generic-arm64",)),
        ("too small", "x86_64", {"avx2"}, GIB // 8, ()),
        ("unknown", "riscv64", set(), 4 * GIB, ()),
    ],
)
def test_fitting(name, arch, flags, memory, expected):
    assert fitting_profiles(arch, frozenset(flags), memory) == expected


@pytest.mark.parametrize(
    ("arch", "flags", "beside", "expected"),
    [
        ("aarch64", {"asimddp"}, {"tegra234"}, ("jetson-orin", "raspberrypi5", "generic-arm64")),
        ("x86_64", {"avx_vnni"}, {"intel-npu"}, ("intel-cpu-vnni", "x86-64-cpu", "intel-npu")),
        ("x86_64", {"avx_vnni"}, {"tegra234"}, ("intel-cpu-vnni", "x86-64-cpu")),
    ],
    ids=["jetson", "npu", "neither"],
)
def test_accelerators_add_the_profiles_that_demand_them(arch, flags, beside, expected):
    assert fitting_profiles(arch, frozenset(flags), 8 * GIB, frozenset(beside)) == expected


def test_flags_are_read_in_both_spellings(tmp_path):
    x86, arm = tmp_path / "x86", tmp_path / "arm"
    x86.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\n")
    arm.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    assert cpu_flags(x86) == {"fpu", "avx2", "avx512_vnni"}
    assert cpu_flags(arm) == {"fp", "asimd", "asimddp"}
    assert cpu_flags(tmp_path / "absent") == frozenset()


def test_detection_finds_this_machine_and_obeys_overrides():
    found = detect_profile(ProfileSettings())
    assert found.engines["reference"]
    assert found.memory_bytes > 0
    overridden = detect_profile(ProfileSettings(names=("my-board",), memory_bytes=5))
    assert (overridden.profiles, overridden.memory_bytes) == (("my-board",), 5)
