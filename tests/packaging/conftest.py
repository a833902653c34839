"""A package built in a second: real but for its libraries, which are a handful of small files in place of 130 MB of wheels."""

import shutil
from pathlib import Path

import pytest

from runtime.packaging.build_deb import build
from runtime.packaging.control import Release

RELEASE = Release(version="1.2.3", arch="arm64", python="3.11", epoch=1_700_000_000)


@pytest.fixture(scope="session")
def small_libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("libraries")
    (place / "other").mkdir()
    (place / "other" / "__init__.py").write_text("")
    (place / "other-1.0.dist-info").mkdir()
    (place / "other-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.4\nName: other\nVersion: 1.0\nLicense: MIT\n")
    return place


@pytest.fixture(scope="session")
def small_package(tmp_path_factory: pytest.TempPathFactory, small_libraries: Path) -> Path:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not here: no package can be built or read")
    return build(small_libraries, RELEASE, tmp_path_factory.mktemp("deb"))
