"""What does dpkg read of the package beside its files: name, needs, sums, scripts, changes and licences?"""

import gzip
import hashlib
from collections.abc import Iterable, Mapping
from email.parser import HeaderParser
from email.utils import formatdate
from pathlib import Path

import msgspec

PACKAGE = "edgewright-runtime"
MAINTAINER = "Edgewright <edgewright@edgewright.invalid>"  # nobody reads mail for it: bugs go where the source is
CONFFILES = ("/etc/edgewright/runtime.toml",)
SCRIPTS = ("postinst", "prerm", "postrm")
# What each wheel platform promises of the C library; lower than any system that has the interpreter.
# Not named, for they are essential: util-linux (setpriv), init-system-helpers (deb-systemd-helper), findutils.
NEEDS = ("libc6 (>= 2.28)", "libstdc++6", "systemd | systemd-standalone-sysusers")


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What is packed. python: the minor version whose extension modules are in it. epoch: the one time that goes into it."""

    version: str
    arch: str
    python: str
    epoch: int

    @property
    def debian_version(self) -> str:
        """One build per interpreter, told apart by what apt and people see of it."""
        return f"{self.version}+py{self.python}"

    @property
    def file_name(self) -> str:
        return f"{PACKAGE}_{self.debian_version}_{self.arch}.deb"


def control(release: Release, installed_bytes: int) -> str:
    return (
        f"Package: {PACKAGE}\n"
        f"Version: {release.debian_version}\n"
        f"Architecture: {release.arch}\n"
        f"Maintainer: {MAINTAINER}\n"
        f"Installed-Size: {-(-installed_bytes // 1024)}\n"
        f"Depends: python{release.python}, {', '.join(NEEDS)}\n"
        "Section: science\n"
        "Priority: optional\n"
        "Description: serve machine-learning models on this device, watched and updated\n"
        " A small daemon that speaks the Open Inference Protocol, fetches signed\n"
        " updates, tests each before it serves, goes back by itself when one is bad,\n"
        " and counts what its models see.\n"
        " .\n"
        " Brings its Python libraries and ONNX Runtime with it: installing it needs no\n"
        " network.\n"
    )


def md5sums(root: Path, files: Iterable[Path]) -> str:
    """For `dpkg --verify`. MD5 is dpkg's choice: it finds damage, not malice."""
    lines = (f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(root)}" for path in files)
    return "".join(f"{line}\n" for line in lines)


def changelog(release: Release) -> bytes:
    text = (
        f"{PACKAGE} ({release.debian_version}) stable; urgency=medium\n\n"
        f"  * Release {release.version}; CHANGELOG.md of the source says what changed.\n\n"
        f" -- {MAINTAINER}  {formatdate(release.epoch)}\n"
    )
    return compressed(text.encode())


def compressed(raw: bytes) -> bytes:
    """As gzip without the time of day, at the level that lintian asks for."""
    return gzip.compress(raw, compresslevel=9, mtime=0)


def copyright_file(licences: Mapping[str, str]) -> str:
    """licences: what each distribution in the package says of itself. The texts lie beside its code, in its dist-info."""
    stanzas = "".join(
        f"\nFiles: usr/lib/edgewright/lib/*/{name}*\nCopyright: the authors named in its dist-info\nLicense: {licence}\n"
        for name, licence in licences.items()
    )
    return (
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
        "Upstream-Name: edgewright\n\n"
        "Files: *\nCopyright: 2026 the Edgewright contributors\nLicense: Apache-2.0\n"
        " On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.\n" + stanzas
    )


def licences_of(packages: Path) -> dict[str, str]:
    """By the folder of distributions: name -> licence in one line, as each one's metadata has it."""
    found: dict[str, str] = {}
    for metadata in sorted(packages.glob("*.dist-info/METADATA")):
        fields = HeaderParser().parsestr(metadata.read_text(encoding="utf-8"))
        classified = [text.rpartition(" :: ")[2] for text in fields.get_all("Classifier", []) if text.startswith("License ::")]
        spoken = fields.get("License-Expression") or ", ".join(classified) or (fields.get("License") or "see its dist-info")
        found[fields["Name"]] = spoken.strip().splitlines()[0]
    return found
