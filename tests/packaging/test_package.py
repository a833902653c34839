"""What lies where in the package, who owns it, and what dpkg is told."""

import os
import subprocess
from pathlib import Path

import pytest

from runtime.packaging.build_deb import PARTS, build, main
from runtime.packaging.control import SCRIPTS, licences_of
from tests.packaging.conftest import RELEASE

PLACES = {
    "./etc/edgewright/runtime.toml": "-rw-r--r--",
    "./lib/systemd/system/edgewright-runtime.service": "-rw-r--r--",
    "./usr/lib/sysusers.d/edgewright-runtime.conf": "-rw-r--r--",
    "./usr/lib/edgewright/pyvenv.cfg": "-rw-r--r--",
    "./usr/lib/edgewright/bin/runtime": "-rwxr-xr-x",
    "./usr/lib/edgewright/lib/python3.11/site-packages/other/__init__.py": "-rw-r--r--",
    "./usr/share/doc/edgewright-runtime/copyright": "-rw-r--r--",
    "./usr/share/doc/edgewright-runtime/changelog.gz": "-rw-r--r--",
    "./usr/share/doc/edgewright-runtime/examples/accelerator.conf": "-rw-r--r--",
    "./usr/share/man/man1/edgewright-runtime.1.gz": "-rw-r--r--",
    "./usr/bin/edgewright-runtime -> ../lib/edgewright/bin/runtime": "lrwxrwxrwx",
    "./usr/lib/edgewright/bin/python3 -> /usr/bin/python3.11": "lrwxrwxrwx",
}


def listing(package: Path) -> list[tuple[str, str, str, str]]:
    """Mode, owner, time and path of every member."""
    said = subprocess.run(["dpkg-deb", "--contents", str(package)], capture_output=True, text=True, check=True, env=UTC).stdout
    rows = [line.split(maxsplit=5) for line in said.splitlines()]
    return [(mode, owner, f"{day} {hour}", path) for mode, owner, _, day, hour, path in rows]


UTC = {**os.environ, "TZ": "UTC"}


def test_everything_lies_at_its_place_with_its_mode(small_package: Path) -> None:
    found = {path: mode for mode, _, _, path in listing(small_package)}
    assert {path: found.get(path) for path in PLACES} == PLACES


def test_everything_is_roots_and_of_one_time(small_package: Path) -> None:
    assert {owner for _, owner, _, _ in listing(small_package)} == {"root/root"}
    assert {time for _, _, time, _ in listing(small_package)} == {"2023-11-14 22:13"}


def test_nothing_lies_where_others_write(small_package: Path) -> None:
    tops = {path.split("/")[1] for _, _, _, path in listing(small_package) if path.count("/") > 1}
    assert tops <= {"etc", "lib", "usr"}
    assert not [path for _, _, _, path in listing(small_package) if path.startswith(("./usr/local", "./var", "./opt"))]


def test_same_inputs_give_the_same_bytes(small_package: Path, small_libraries: Path, tmp_path: Path) -> None:
    for path in small_libraries.rglob("*"):
        os.utime(path, (1, 1))
    before = os.umask(0o077)
    try:
        again = build(small_libraries, RELEASE, tmp_path)
    finally:
        os.umask(before)
    assert again.read_bytes() == small_package.read_bytes()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Package", "edgewright-runtime"),
        ("Version", "1.2.3+py3.11"),
        ("Architecture", "arm64"),
        ("Depends", "python3.11, libc6 (>= 2.28), libstdc++6, systemd | systemd-standalone-sysusers"),
    ],
)
def test_control_says(small_package: Path, field: str, value: str) -> None:
    said = subprocess.run(["dpkg-deb", "--field", str(small_package), field], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == value
    assert small_package.name == "edgewright-runtime_1.2.3+py3.11_arm64.deb"


def test_configuration_is_kept_over_upgrades_and_files_can_be_verified(small_package: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--control", str(small_package), str(tmp_path)], check=True)
    assert (tmp_path / "conffiles").read_text() == "/etc/edgewright/runtime.toml\n"
    named = [line.split("  ")[1] for line in (tmp_path / "md5sums").read_text().splitlines()]
    links = [path.partition(" -> ")[0] for mode, _, _, path in listing(small_package) if mode.startswith("l")]
    files = [path for mode, _, _, path in listing(small_package) if mode.startswith("-")]
    assert sorted(f"./{name}" for name in named) == sorted(files)
    assert not set(links) & {f"./{name}" for name in named}
    assert all((tmp_path / script).stat().st_mode & 0o777 == 0o755 for script in SCRIPTS)


@pytest.mark.parametrize("script", [*SCRIPTS, "launcher.sh"])
def test_scripts_are_plain_sh_that_stops_at_an_error(script: str) -> None:
    path = PARTS / "debian" / script
    subprocess.run(["sh", "-n", str(path)], check=True)
    assert path.read_text().startswith("#!/bin/sh\n")
    assert "\nset -e" in path.read_text()


def test_licences_come_from_what_is_packed(small_libraries: Path) -> None:
    assert licences_of(small_libraries) == {"other": "MIT"}


def test_lock_that_is_not_there_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lock", str(tmp_path / "none.txt"), "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "none.txt" in said
    assert said.endswith("[packaging.failed]\n")
