"""Static files: their address follows their bytes, vendored ones are what they claim, and the wheel takes all of them."""

import hashlib
import re
import tomllib
from pathlib import Path

from fleet.dashboard.assets import STATIC, Assets
from fleet.dashboard.render import TEMPLATES

ROOT = Path(__file__).parents[3]


def test_address_changes_with_any_byte_and_any_name(tmp_path: Path) -> None:
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "a.js").write_text("1")
    first = Assets(tmp_path)
    assert first.url("vendor/a.js") == f"/static/{first.digest}/vendor/a.js"
    assert Assets(tmp_path).digest == first.digest
    (tmp_path / "vendor" / "a.js").write_text("2")
    second = Assets(tmp_path).digest
    (tmp_path / "vendor" / "a.js").rename(tmp_path / "vendor" / "b.js")
    assert len({first.digest, second, Assets(tmp_path).digest}) == 3


def test_vendored_scripts_are_the_ones_that_were_noted() -> None:
    vendor = STATIC / "vendor"
    noted = dict(re.findall(r"\| `([a-z-]+(?:\.min)?\.js)` \|.*`([0-9a-f]{64})` \|", (vendor / "VENDORED.md").read_text()))
    held = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in vendor.glob("*.js")}
    assert noted == held
    for script in held:
        assert (vendor / f"{script.removesuffix('.js').removesuffix('.min').removesuffix('-ext')}.LICENSE").exists()


def test_the_wheel_takes_every_template_and_static_file() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    package = ROOT / "fleet"
    packed = {
        file for pattern in settings["tool"]["setuptools"]["package-data"]["fleet"] for file in package.glob(f"{pattern}/*")
    }
    packed |= {file for pattern in settings["tool"]["setuptools"]["package-data"]["fleet"] for file in package.glob(pattern)}
    needed = {file for folder in (STATIC, TEMPLATES) for file in folder.rglob("*") if file.is_file()}
    assert needed
    assert needed <= packed
