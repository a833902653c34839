"""Does the wheel hold our three packages and nothing else, and does the device core stay small?"""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.layering.rules import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, "."],
        cwd=_clean_copy(tmp_path_factory.mktemp("source")),
        check=True,
        capture_output=True,
    )
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_the_wheels_top_level(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"runtime", "toolchain", "fleet"}


@pytest.mark.parametrize("folder", ["toolchain", "fleet", "runtime"])
def test_every_file_of_a_package_is_in_the_wheel(wheel: zipfile.ZipFile, folder: str) -> None:
    tracked = subprocess.run(["git", "ls-files", folder], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    assert set(tracked) - set(wheel.namelist()) == set()


def test_the_device_core_has_at_most_six_direct_dependencies() -> None:
    assert len(PROJECT["dependencies"]) <= 6


def test_extras_and_commands_are_the_designed_ones() -> None:
    assert set(PROJECT["optional-dependencies"]) == {
        "onnxruntime", "openvino", "tensorrt", "grpc", "batch", "toolchain", "fleet", "evidently", "loadgen", "ray", "feast", "dev",
    }  # fmt: skip
    assert set(PROJECT["scripts"]) == {"toolchain", "runtime", "fleet"}


def test_the_service_needs_no_torch_and_no_engine() -> None:
    needs = {re.split(r"[\[<>=~! ]", line)[0] for line in PROJECT["optional-dependencies"]["fleet"]}
    assert not needs & {"torch", "onnxruntime", "openvino", "tensorrt", "scikit-learn", "mlflow"}


@pytest.mark.parametrize("name", ["dev.txt", "device.txt", "bootstrap.txt"])
def test_locks_have_hashes_and_no_addresses(name: str) -> None:
    lock = (ROOT / "requirements" / name).read_text()
    assert "--hash=sha256:" in lock
    assert not re.search(r"://|--index|--find-links", lock)


def _clean_copy(folder: Path) -> Path:
    """The tracked files alone, so that a build leaves nothing in the checkout and takes nothing stray from it."""
    archive = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    for name in filter(None, archive.split("\0")):
        source = ROOT / name
        if source.is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    return folder
