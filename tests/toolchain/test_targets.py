"""Do the profiles that ship load, and is "measured" said only of a device of the profile?"""

from pathlib import Path

import pytest

from runtime.backends.base import backend_names
from toolchain.errors import RecipeError
from toolchain.targets import Host, Profile, load_profile, profile_names, this_host

VNNI = frozenset({"avx2", "avx512_vnni"})


def host(arch: str = "x86_64", flags: frozenset[str] = frozenset({"avx2"}), beside: frozenset[str] = frozenset()) -> Host:
    return Host(arch=arch, cpu="test", flags=flags, cores=2, accelerators=beside)


@pytest.mark.parametrize("name", profile_names(Path("nowhere")))
def test_every_profile_states_order_memory_and_sources(name: str) -> None:
    profile = load_profile(name, Path("nowhere"))
    assert set(profile.engines) <= set(backend_names())
    assert profile.precisions[0] == "float32"
    assert profile.memory_bytes >= 512 * 2**20
    assert profile.sources
    assert profile.notes.strip()


def test_profiles_that_must_be_there() -> None:
    wanted = {"x86-64-cpu", "intel-cpu-vnni", "intel-cpu-amx", "intel-npu", "raspberrypi5", "jetson-orin", "generic-arm64"}
    assert set(profile_names(Path("nowhere"))) == wanted


def test_bf16_is_promised_only_where_every_device_computes_it() -> None:
    profiles = {name: load_profile(name, Path("nowhere")) for name in profile_names(Path("nowhere"))}
    assert [name for name, profile in profiles.items() if "bfloat16" in profile.precisions] == ["intel-cpu-amx"]
    assert ("amx_bf16", "avx512_bf16") in profiles["intel-cpu-amx"].instruction_sets


def test_tensorrt_is_the_jetson_s_and_onnxruntime_stands_behind_it() -> None:
    profiles = {name: load_profile(name, Path("nowhere")) for name in profile_names(Path("nowhere"))}
    assert [name for name, profile in profiles.items() if "tensorrt" in profile.engines] == ["jetson-orin"]
    assert profiles["jetson-orin"].engines == ("tensorrt", "onnxruntime")
    assert profiles["jetson-orin"].precisions == ("float32", "float16", "int8")


@pytest.mark.parametrize(
    ("machine", "name", "fits"),
    [
        (host(), "x86-64-cpu", True),
        (host(), "intel-cpu-vnni", False),
        (host(flags=VNNI), "intel-cpu-vnni", True),
        (host(flags=frozenset({"avx_vnni"})), "intel-cpu-vnni", True),
        (host(), "generic-arm64", False),
        (host("aarch64", frozenset({"asimd"})), "generic-arm64", True),
        (host("aarch64", frozenset({"asimd"})), "x86-64-cpu", False),
        (host(flags=VNNI), "intel-cpu-amx", False),
        (host(flags=VNNI | {"avx512_bf16"}), "intel-cpu-amx", True),
        (host(flags=VNNI | {"amx_bf16"}), "intel-cpu-amx", True),
        (host(flags=VNNI | {"amx_bf16"}), "intel-npu", False),
        (host(beside=frozenset({"intel-npu"})), "intel-npu", True),
        (host("aarch64", frozenset({"asimddp"})), "jetson-orin", False),
        (host("aarch64", frozenset({"asimddp"}), frozenset({"tegra234"})), "jetson-orin", True),
    ],
)
def test_a_host_fits_a_profile_by_arch_and_flags(machine: Host, name: str, fits: bool) -> None:
    assert machine.fits(load_profile(name, Path("nowhere"))) is fits


def test_int8_latency_of_a_vnni_machine_is_not_plain_x86_s() -> None:
    profile = load_profile("x86-64-cpu", Path("nowhere"))
    assert "avx512_vnni" in host(flags=VNNI).why_unlike(profile, "int8")
    assert host(flags=VNNI).why_unlike(profile, "float32") == ""
    assert host().why_unlike(profile, "int8") == ""


def test_a_manifest_can_demand_only_what_every_device_has() -> None:
    either = Profile(arch="x86_64", instruction_sets=(("a", "b"),), engines=("onnxruntime",), precisions=("float32",))
    both = Profile(arch="x86_64", instruction_sets=(("a",), ("b",)), engines=("onnxruntime",), precisions=("float32",))
    assert either.required_flags == ()
    assert both.required_flags == ("a", "b")


def test_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean x86-64-cpu"):
        load_profile("x86-64-cpus", Path("nowhere"))


def test_own_profile_beside_the_recipe(tmp_path: Path) -> None:
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "my-box.toml").write_text('arch = "x86_64"\nengines = ["onnxruntime"]\nprecisions = ["float32"]\n')
    assert load_profile("my-box", tmp_path).engines == ("onnxruntime",)
    (folder / "my-box.toml").write_text('arch = "x86_64"\nengine = ["onnxruntime"]\nprecisions = ["float32"]\n')
    with pytest.raises(RecipeError, match="unknown field `engine`"):
        load_profile("my-box", tmp_path)
    (folder / "my-box.toml").write_text(
        'arch = "x86_64"\naccelerator = "tpu"\nengines = ["onnxruntime"]\nprecisions = ["float32"]\n'
    )
    with pytest.raises(RecipeError, match="Invalid enum value 'tpu'"):
        load_profile("my-box", tmp_path)


def test_an_own_profile_goes_before_one_of_ours_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "raspberrypi5.toml").write_text(
        'arch = "aarch64"\nengines = ["onnxruntime"]\nprecisions = ["float32"]\nthreads = 4\n'
    )
    assert load_profile("raspberrypi5", tmp_path).threads == 4
    assert load_profile("raspberrypi5", tmp_path / "elsewhere").threads == 1
    assert "raspberrypi5" in profile_names(tmp_path)


def test_this_host_is_read_from_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2\n\nprocessor\t: 1\n")
    found = this_host(cpuinfo)
    assert found.cpu == "Some CPU"
    assert found.flags == {"fpu", "avx2"}
    assert this_host(tmp_path / "absent").flags == frozenset()
