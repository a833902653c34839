"""How does the checkout become one Debian package that a device installs without a network?

The libraries are unpacked here, for the device's architecture and Python, from the lock with its hashes; so dpkg knows every
file, can verify each, and nothing is resolved, fetched or compiled from source on the device. The same checkout and lock give
the same bytes: names sorted, one time (SOURCE_DATE_EPOCH, else the last commit's), root as the owner of all.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from runtime.errors import PackagingError
from runtime.packaging.control import (
    CONFFILES,
    PACKAGE,
    SCRIPTS,
    Release,
    changelog,
    compressed,
    control,
    copyright_file,
    licences_of,
    md5sums,
)
from runtime.packaging.sample_config import sample_config

CHECKOUT = Path(__file__).resolve().parents[2]
PARTS = Path(__file__).resolve().parent
LOCK = CHECKOUT / "requirements" / "device.txt"
PLATFORMS = {"amd64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}
PYTHONS = ("3.11", "3.12", "3.13")
HOST_SIDE = ("toolchain", "fleet")  # of our own distribution: no use on a device
HOME = "usr/lib/edgewright"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="build_deb", description="Build the Debian package of the device runtime.")
    parser.add_argument("--arch", choices=tuple(PLATFORMS), default="amd64")
    parser.add_argument("--python", choices=PYTHONS, default="3.11", help="the device's Python (Debian 12 and its kin: 3.11)")
    parser.add_argument("--lock", type=Path, default=LOCK, help="hashed requirements (default: requirements/device.txt)")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "dist", metavar="DIR")
    options = parser.parse_args(arguments)
    release = Release(version=project_version(), arch=options.arch, python=options.python, epoch=source_epoch())
    try:
        with tempfile.TemporaryDirectory() as folder:
            packages = Path(folder) / "packages"
            install_libraries(packages, release, options.lock)
            package = build(packages, release, options.out)
    except PackagingError as error:
        print(f"build_deb: {error} [{error.code}]", file=sys.stderr)  # noqa: T201  the one line a failure prints
        return 1
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    print(f"{package}  {package.stat().st_size / 1e6:.1f} MB  sha256 {digest}")  # noqa: T201  this is the command's output
    return 0


def project_version() -> str:
    return str(tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def source_epoch() -> int:
    """The one time in the package, in seconds since 1970."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    return int(_run(["git", "-C", str(CHECKOUT), "log", "-1", "--format=%ct"]).strip())


def install_libraries(packages: Path, release: Release, lock: Path) -> None:
    """The locked wheels and our own, unpacked into a folder as they will lie on the device. Raises PackagingError."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    wheels = packages.with_name("wheels")
    source = packages.with_name("source")
    # From a copy: building in place leaves folders behind that shadow the checkout's own entry points.
    for name in ("runtime", *HOST_SIDE):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    _run(
        [
            uv,
            "build",
            "--quiet",
            "--wheel",
            "--no-build-isolation",
            "--python",
            sys.executable,
            "--out-dir",
            str(wheels),
            str(source),
        ]
    )
    into = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--target",
        str(packages),
        "--python",
        sys.executable,
        "--python-version",
        release.python,
    ]
    into += ["--python-platform", PLATFORMS[release.arch], "--link-mode", "copy", "--only-binary", ":all:"]
    _run([*into, "--require-hashes", "-r", str(lock)])
    _run([*into, "--no-deps", *map(str, wheels.glob("*.whl"))])
    _leave_out_what_is_the_hosts(packages)


def build(packages: Path, release: Release, out: Path) -> Path:
    """Pack the libraries with unit, configuration and scripts. Returns the package's path. Raises PackagingError."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        lay_out(root, packages, release)
        contents = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        meta = root / "DEBIAN"
        meta.mkdir()
        (meta / "control").write_text(control(release, sum(path.stat().st_size for path in contents)))
        (meta / "md5sums").write_text(md5sums(root, contents))
        (meta / "conffiles").write_text("".join(f"{name}\n" for name in CONFFILES))
        for script in SCRIPTS:
            shutil.copyfile(PARTS / "debian" / script, meta / script)
        _settle(root, release.epoch)
        out.mkdir(parents=True, exist_ok=True)
        package = out / release.file_name
        command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--threads-max=2", "--build", str(root), str(package)]
        _run(command, SOURCE_DATE_EPOCH=str(release.epoch))
    return package


def lay_out(root: Path, packages: Path, release: Release) -> None:
    """Every file of the package at its place below root."""
    home = root / HOME
    site = home / "lib" / f"python{release.python}" / "site-packages"
    shutil.copytree(packages, site, ignore=shutil.ignore_patterns("__pycache__"))
    # A virtual environment without copies of anything: the system's interpreter, and none of the system's libraries.
    (home / "bin").mkdir()
    (home / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {release.python}\n")
    (home / "bin" / "python3").symlink_to(f"/usr/bin/python{release.python}")
    shutil.copyfile(PARTS / "debian" / "launcher.sh", home / "bin" / "runtime")
    (root / "usr/bin").mkdir()
    (root / "usr/bin" / PACKAGE).symlink_to("../lib/edgewright/bin/runtime")
    documents = f"usr/share/doc/{PACKAGE}"
    for source, target in {
        "systemd/edgewright-runtime.service": f"lib/systemd/system/{PACKAGE}.service",
        "systemd/edgewright-runtime.sysusers": f"usr/lib/sysusers.d/{PACKAGE}.conf",
        "debian/lintian-overrides": f"usr/share/lintian/overrides/{PACKAGE}",
    }.items():
        _write(root / target, (PARTS / source).read_bytes())
    for example in (PARTS / "systemd" / "examples").iterdir():
        _write(root / documents / "examples" / example.name, example.read_bytes())
    _write(root / "etc/edgewright/runtime.toml", sample_config().encode())
    _write(root / documents / "changelog.gz", changelog(release))
    _write(root / documents / "copyright", copyright_file(licences_of(site)).encode())
    manual = (PARTS / "debian" / f"{PACKAGE}.1").read_bytes()
    _write(root / "usr/share/man/man1" / f"{PACKAGE}.1.gz", compressed(manual))


def _leave_out_what_is_the_hosts(packages: Path) -> None:
    """Commands with this machine's interpreter in their first line, the host's half of ours, and traces of this build.

    Each distribution's RECORD then lists what is still there, so that it can be checked on the device.
    """
    for name in ("bin", *HOST_SIDE):
        shutil.rmtree(packages / name, ignore_errors=True)
    for trace in (".lock", "*.dist-info/direct_url.json", "*.dist-info/uv_cache.json", "*.dist-info/REQUESTED"):
        for path in packages.glob(trace):
            path.unlink()
    for record in packages.glob("*.dist-info/RECORD"):
        lines = record.read_text(encoding="utf-8").splitlines()
        kept = sorted(line for line in lines if (packages / line.rsplit(",", 2)[0].strip('"')).exists())
        record.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _settle(root: Path, epoch: int) -> None:
    """Modes and times that do not depend on who built it, when and under which umask."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            is_program = (
                path.is_dir() or (path.parent.name == "DEBIAN" and path.name in SCRIPTS) or path.parent == root / HOME / "bin"
            )
            path.chmod(0o755 if is_program else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _write(path: Path, raw: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)


def _run(command: list[str], **environment: str) -> str:
    """stdout of a program that must succeed. Raises PackagingError with the last line it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    except OSError as error:
        raise PackagingError(f"{command[0]} cannot be run: {error.strerror}; install it, then try again") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise PackagingError(f"{Path(command[0]).name} {command[1]} failed with {done.returncode}: {' / '.join(said[-3:])}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
