"""What can be asked of an arm64 device that is a folder and an emulator?

The package's own files in a fresh Debian root, its Python and its libraries, every process of it emulated by qemu-user. What
is not as on a board: the kernel is this machine's, there is no systemd, and time passes some twenty times slower.
"""

import http.client
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np

from benchmarks.arm64.root import CannotRunError, make_root, require_programs

HERE = Path(__file__).resolve().parent
CPUINFO = HERE / "cpuinfo"
ENTER = ("unshare", "--user", "--map-root-user", "--mount", "--kill-child", "--fork", "sh", str(HERE / "enter.sh"))
# Not /usr/bin/edgewright-runtime: it becomes the daemon's user, and this namespace knows none but its own root.
RUNTIME = ("/usr/lib/edgewright/bin/python3", "-m", "runtime.cli")
PACKAGES = ("python3.11", "libstdc++6", "coreutils", "dash")
COMMAND_S, START_S = 600.0, 180.0


class DeviceFailedError(Exception):
    """A command of the emulated device did not end as it must, or it did not answer."""


class Arm64Device:
    """cpu: the core qemu plays; its features decide which kernels the engine takes."""

    def __init__(self, root: Path, cpu: str) -> None:
        self.root = root
        self.cpu = cpu
        self._daemon: subprocess.Popen[bytes] | None = None
        self._log = root.with_name(root.name + ".log")

    def run(self, *command: str) -> str:
        """stdout of one command of the runtime. Raises DeviceFailedError."""
        done = subprocess.run(
            self._entered(*RUNTIME, *command),
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        if done.returncode:
            raise DeviceFailedError(f"runtime {command[0]} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def start(self, port: int) -> float:
        """Start the daemon and wait until it answers. Returns the seconds that took."""
        begin = time.monotonic()
        with self._log.open("ab") as log:
            self._daemon = subprocess.Popen(
                self._entered(*RUNTIME, "run", "--set", f"serving.port={port}"),
                env=self._environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not _is_ready(port):
            if self._daemon.poll() is not None or time.monotonic() - begin > START_S:
                raise DeviceFailedError(f"the daemon does not answer: {self._log.read_text()[-2000:]}")
            time.sleep(0.2)
        return time.monotonic() - begin

    def stop(self) -> None:
        """Ends the whole group: the emulator, and unshare around it."""
        if self._daemon is not None:
            os.killpg(self._daemon.pid, signal.SIGTERM)
            try:
                self._daemon.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self._daemon.pid, signal.SIGKILL)
                self._daemon.wait(10)
            self._daemon = None

    def _entered(self, *command: str) -> list[str]:
        return [*ENTER, str(self.root), str(CPUINFO), *command]

    def _environment(self) -> dict[str, str]:
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "QEMU_CPU": self.cpu, "PYTHONSAFEPATH": "1", "LC_ALL": "C.UTF-8"}


def make_device_root(root: Path, package: Path) -> None:
    """An arm64 root with the package's files in it. Raises CannotRunError where this machine cannot run it."""
    require_programs("mmdebstrap", "qemu-aarch64-static", "unshare", packages="mmdebstrap qemu-user-static util-linux")
    make_root(root, arch="arm64", variant="extract", packages=PACKAGES)
    subprocess.run(["dpkg-deb", "--extract", str(package), str(root)], check=True)
    for folder in ("proc", "dev", "tmp", "var/lib/edgewright"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    _require_emulation(root)


def infer(port: int, model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One request over HTTP, JSON both ways (FP32 models). Raises DeviceFailedError."""
    tensors = [
        {"name": name, "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
        for name, array in inputs.items()
    ]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", f"/v2/models/{model}/infer", json.dumps({"inputs": tensors}))
        response = connection.getresponse()
        answer = json.loads(response.read())
    finally:
        connection.close()
    if response.status != 200:
        raise DeviceFailedError(f"{model}: {response.status} {answer}")
    return {one["name"]: np.array(one["data"], np.float32).reshape(one["shape"]) for one in answer["outputs"]}


def _require_emulation(root: Path) -> None:
    probe = [*ENTER, str(root), str(CPUINFO), "/usr/bin/python3.11", "-c", "import platform; print(platform.machine())"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.stdout.strip() != "aarch64":
        raise CannotRunError(
            "arm64 programs do not run in a namespace of this machine (needs Linux 6.7, user namespaces and a binfmt_misc module): "
            + done.stderr.strip()[-300:]
        )


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
