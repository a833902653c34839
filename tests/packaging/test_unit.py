"""The systemd unit: what systemd makes of it, and the promises that must not be edited away."""

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from runtime.config import Config
from runtime.packaging.build_deb import PARTS

UNIT = PARTS / "systemd" / "edgewright-runtime.service"
EXAMPLES = sorted((PARTS / "systemd" / "examples").glob("*.conf"))
# 1.6 by systemd 252: half of it is the network (0.5) and what the unit's comments give reasons for.
EXPOSURE_AT_MOST = 1.6
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")


@pytest.fixture
def root(small_package: Path, tmp_path: Path) -> Path:
    """The package's files, and an interpreter for its link to point to."""
    subprocess.run(["dpkg-deb", "--extract", str(small_package), str(tmp_path)], check=True)
    python = tmp_path / "usr/bin/python3.11"
    python.write_text("")
    python.chmod(0o755)
    return tmp_path


def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have capitals
    parser.read_string(UNIT.read_text())
    return parser["Service"]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@needs_systemd
def test_systemd_finds_nothing_wrong(root: Path) -> None:
    done = analyze("verify", f"--root={root}", "--man=no", "--recursive-errors=no", UNIT.name)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_unit_that_systemd_does_not_know_would_be_found(root: Path) -> None:
    unit = root / "lib/systemd/system" / UNIT.name
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchdogSecs="))
    assert "WatchdogSecs" in analyze("verify", f"--root={root}", "--man=no", "--recursive-errors=no", UNIT.name).stderr


@needs_systemd
def test_exposure_stays_where_it_is(root: Path) -> None:
    done = analyze("security", f"--root={root}", "--offline=yes", "--no-pager", UNIT.name)
    assert float(re.findall(r"level for \S+: ([\d.]+)", done.stdout)[0]) <= EXPOSURE_AT_MOST


@needs_systemd
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_samples_are_known_to_systemd(root: Path, example: Path) -> None:
    place = root / "etc/systemd/system" / f"{UNIT.name}.d" / example.name
    place.parent.mkdir(parents=True)
    place.write_text(example.read_text())
    said = analyze("verify", f"--root={root}", "--man=no", "--recursive-errors=no", UNIT.name).stderr
    newer = example.name == "backoff.conf"  # names its systemd; an older one says so and goes on
    assert not [line for line in said.splitlines() if not (newer and "Unknown key 'Restart" in line)]


def test_daemon_can_tell_systemd_and_is_started_again() -> None:
    unit = service()
    assert (unit["Type"], unit["Restart"]) == ("notify", "always")
    assert int(unit["WatchdogSec"]) > 0
    assert "StartLimitIntervalSec=0" in UNIT.read_text()


def test_stop_leaves_the_time_that_draining_takes() -> None:
    assert int(service()["TimeoutStopSec"]) > 2 * Config().serving.drain_s


def test_state_lies_where_the_configuration_says() -> None:
    assert f"/var/lib/{service()['StateDirectory']}" == Config().device.state_dir
    sysusers = (PARTS / "systemd" / "edgewright-runtime.sysusers").read_text()
    assert re.search(rf"^u {service()['User']} ", sysusers, re.MULTILINE)


def test_every_option_left_off_has_its_reason() -> None:
    text = UNIT.read_text()
    off = text.partition("Left off")[2]
    for option in ("MemoryDenyWriteExecute", "ProcSubset", "RemoveIPC", "PrivateUsers"):
        assert option in off
        assert option not in service()
    assert json.dumps(service().get("CapabilityBoundingSet")) == '""'
