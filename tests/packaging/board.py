"""A Debian board that is a container: real systemd as its first process, no network, the package installed by dpkg."""

import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.arm64.root import CannotRunError, make_root, require_programs

PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3.11", "libstdc++6")
BOOT_S = 120.0


class Board:
    """root: a folder that holds its file system; gone with it."""

    def __init__(self, root: Path) -> None:
        """Make the root. Raises CannotRunError where this machine refuses."""
        if os.geteuid() != 0:
            raise CannotRunError("booting a container needs root")
        require_programs("mmdebstrap", "systemd-nspawn", "nsenter", packages="mmdebstrap systemd-container util-linux")
        self.root = root
        make_root(root, arch=_native(), variant="minbase", packages=PACKAGES)
        self._container: subprocess.Popen[bytes] | None = None
        self._first = ""

    def boot(self) -> "Board":
        """Start systemd in it and wait until it is up. Raises CannotRunError."""
        command = [
            "systemd-nspawn",
            "--quiet",
            "--directory",
            str(self.root),
            "--register=no",
            "--keep-unit",
            "--private-network",
        ]
        log = self.root.with_name(self.root.name + ".log")
        with log.open("ab") as out:
            self._container = subprocess.Popen([*command, "--boot"], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        stop = time.monotonic() + BOOT_S
        while self.run("systemctl", "is-system-running", check=False) not in ("running", "degraded"):
            if self._container.poll() is not None or time.monotonic() > stop:
                self.close()
                raise CannotRunError(f"systemd does not start in a container here: {log.read_text(errors='replace')[-500:]}")
            time.sleep(0.2)
        return self

    def run(self, *command: str, check: bool = True) -> str:
        """What a command on the board says on stdout."""
        first = self._first_process()
        if not first:
            return ""
        done = subprocess.run(
            ["nsenter", "--target", first, "--all", *command], capture_output=True, text=True, check=False, timeout=300
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def property(self, name: str) -> str:
        """Of the daemon's unit, as systemd sees it."""
        return self.run("systemctl", "show", "--value", "--property", name, "edgewright-runtime")

    def journal(self) -> str:
        return self.run("journalctl", "--unit", "edgewright-runtime", "--no-pager", check=False)

    def close(self) -> None:
        if self._container is not None:
            self._container.terminate()  # nspawn makes it an orderly shutdown
            try:
                self._container.wait(60)
            except subprocess.TimeoutExpired:
                self._container.kill()
                self._container.wait(10)
            self._container = None
            self._first = ""
        shutil.rmtree(Path("/run/systemd/nspawn/propagate") / self.root.name, ignore_errors=True)
        _remove_control_groups()

    def _first_process(self) -> str:
        """This machine's number of the board's first process; "" until there is one."""
        if not self._first and self._container is not None:
            children = Path(f"/proc/{self._container.pid}/task/{self._container.pid}/children")
            found = children.read_text().split() if children.exists() else []
            is_first = found and Path(f"/proc/{found[0]}/status").read_text().partition("NSpid:")[2].split()[1:2] == ["1"]
            self._first = found[0] if is_first else ""
        return self._first


def _remove_control_groups() -> None:
    """The empty ones that nspawn leaves where no systemd runs on the machine itself; one in use cannot be removed."""
    for hierarchy in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        for name in ("payload", "supervisor"):
            for place, _, _ in os.walk(hierarchy / name, topdown=False):
                with suppress(OSError):
                    Path(place).rmdir()


def _native() -> str:
    return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
