"""How does a whole fleet run on one machine? A service and its devices as separate processes below one folder.

Everything is done the way a user does it: by the installed commands, the REST client and the device API. Nothing here
reaches into a program's memory or database.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fleet.client import ApiError, Client

T = TypeVar("T")

MODEL = "digits"
CHECKOUT = Path(__file__).resolve().parents[2]
RECIPE = CHECKOUT / "models" / MODEL / "recipe.toml"
QUICK = {"model.options.width": "16", "compress.methods": "[]", "compress.schemes": '["onnxruntime-int8"]'}
"""Half the width, and of all variants three, so that a build takes seconds: the fleet is what is shown here."""


class StepFailedError(Exception):
    """A command or a wait of the demo did not end as it must; the text says which and what was seen last."""


def free_port() -> int:
    """A port that was free a moment ago, on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, look: Callable[[], T | None], timeout_s: float, every_s: float = 0.2) -> T:
    """The first truthy answer of `look`. Raises StepFailedError naming what was waited for and what was seen last."""
    deadline = time.monotonic() + timeout_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise StepFailedError(f"{what}: not within {timeout_s:.0f} s; last seen: {seen!r}")
        time.sleep(every_s)


def command(name: str) -> str:
    """The installed command of this environment."""
    return str(Path(sys.executable).with_name(name))


class Process:
    """One program in the background, its output in a file."""

    def __init__(self, arguments: list[str], log: Path, env: Mapping[str, str]) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            self._popen = subprocess.Popen(arguments, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **env})

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    def stop(self) -> None:
        """Ask to end, and insist after a while."""
        if self.is_running:
            self._popen.terminate()
            try:
                self._popen.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """SIGKILL: what a power cut does to a process."""
        self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()

    def last_lines(self, count: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


class Device:
    """One `runtime run` daemon with its own state folder and HTTP port."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.folder = folder
        self.port = free_port()
        self.config = folder / "runtime.toml"
        self.process: Process | None = None
        self._environment = environment
        folder.mkdir(parents=True)
        self.config.write_text(
            f'[device]\nstate_dir = "{folder / "state"}"\n\n[serving]\nhost = "127.0.0.1"\nport = {self.port}\n', encoding="utf-8"
        )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        self.process = Process(
            [command("runtime"), "run", "--config", str(self.config)], self.folder / "daemon.log", self._environment
        )

    def stop(self) -> None:
        if self.process:
            self.process.stop()

    def kill(self) -> None:
        if self.process:
            self.process.kill()


class LocalFleet:
    """A service, its devices, and the keys of the engineer who releases to them, all below `home`."""

    def __init__(self, home: Path, *, window_s: int = 2, probation_s: int = 2) -> None:
        self.home = home
        self.keys, self.service_home, self.out = home / "keys", home / "fleet", home / "out"
        self.devices: dict[str, Device] = {}
        self.service: Process | None = None
        self._window_s, self._probation_s = window_s, probation_s
        self._ports = {"API_PORT": free_port(), "DOOR_PORT": free_port(), "BROKER_PORT": free_port()}
        # One thread an engine: the machine is shared by everything here, and figures are compared across it.
        self._environment = {
            "EDGEWRIGHT_KEYS": str(self.keys),
            "EDGEWRIGHT_CACHE": str(home / "cache"),
            "EDGEWRIGHT_TRACKING": f"sqlite:///{home / 'mlflow.db'}",
            "EDGEWRIGHT_FLEET_DEFAULTS_WINDOW_S": str(window_s),
            "EDGEWRIGHT_FLEET_DEFAULTS_PROBATION_S": str(probation_s),
            "EDGEWRIGHT_FLEET_SCHEDULER_DRIFT_MS": str(1000 * window_s),  # no need to look before windows come
            **{f"EDGEWRIGHT_FLEET_{name}": str(port) for name, port in self._ports.items()},
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports['API_PORT']}"

    @property
    def admin_token(self) -> str:
        return (self.service_home / "admin.token").read_text().strip()

    def client(self) -> Client:
        return Client(self.url, self.admin_token)

    # the engineer's side

    def run(self, *arguments: str, timeout_s: float = 180, env: Mapping[str, str] | None = None) -> str:
        """One of the three commands to its end; its stdout. env: what differs from everybody's environment here.

        Raises StepFailedError with its last words.
        """
        done = subprocess.run(
            [command(arguments[0]), *arguments[1:]],
            capture_output=True,
            text=True,
            env={**os.environ, **self._environment, **(env or {})},
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            words = "\n".join((done.stdout + done.stderr).splitlines()[-12:])
            raise StepFailedError(f"`{' '.join(arguments)}` exited {done.returncode}:\n{words}")
        return done.stdout

    def build(self, version: str, settings: Mapping[str, str] | None = None) -> Path:
        """Build the digits recipe as this version; the release's folder."""
        changes = {"model.version": version, **QUICK, **(settings or {})}
        options = [f"{key}={value}" for key, value in changes.items()]
        flags = [flag for option in options for flag in ("--set", option)]
        self.run("toolchain", "build", str(RECIPE), "--out", str(self.out), *flags)
        return self.out / MODEL / version

    def create(self) -> None:
        """Keys, then a fleet that trusts them."""
        self.run("toolchain", "keys", "create", "--dir", str(self.keys))
        self.run("fleet", "init", "--root", str(self.keys / "root.json"), "--home", str(self.service_home))

    def authorize(self) -> None:
        self.run("toolchain", "keys", "authorize", "--to", self.url, "--token-file", str(self.service_home / "admin.token"))

    def publish(self, release: Path) -> None:
        self.run("toolchain", "publish", str(release), "--to", self.url, "--token-file", str(self.service_home / "admin.token"))

    # the service

    def start_service(self, timeout_s: float = 30) -> None:
        self.service = Process(
            [command("fleet"), "serve", "--config", str(self.service_home / "fleet.toml")],
            self.home / "service.log",
            self._environment,
        )
        wait_for("the service answers", self._is_healthy, timeout_s)

    def _is_healthy(self) -> bool:
        if self.service and not self.service.is_running:
            raise StepFailedError(f"`fleet serve` ended:\n{self.service.last_lines()}")
        try:
            with self.client() as client:
                return bool(client.health())
        except ApiError:
            return False

    # the devices

    def add_device(self, name: str, labels: Mapping[str, str] | None = None) -> Device:
        """Enrol a device by a one-time token and start its daemon."""
        device = Device(name, self.home / "devices" / name, self._environment)
        with self.client() as client:
            token = client.create_enrolment(device=name, labels=labels)
        self.run("runtime", "enroll", "--config", str(device.config), "--device", name, token)
        device.start()
        self.devices[name] = device
        return device

    def reported_devices(self) -> int:
        """How many devices ever reported."""
        with self.client() as client:
            return sum(device["reported_ms"] is not None for device in client.devices())

    def serving(self, device: str) -> str | None:
        """The version of the digits model a device says it serves; None while it serves none."""
        with self.client() as client:
            return serving_version(client.device(device))

    def close(self) -> None:
        for device in self.devices.values():
            device.stop()
        if self.service:
            self.service.stop()

    def erase(self) -> None:
        self.close()
        shutil.rmtree(self.home, ignore_errors=True)


def serving_version(device: Mapping[str, Any], model: str = MODEL) -> str | None:
    """What a device's entry in the API says it serves."""
    versions = [entry["version"] for entry in device["models"] if entry["model"] == model]
    return versions[0] if versions else None


def roll_out_at_once(fleet: LocalFleet, version: str, **plan: Any) -> str:
    """Create and start a rollout to every device with no gate that looks at windows; its id. plan: what to change of that."""
    with fleet.client() as client:
        body = {"model": MODEL, "version": version, "stages": [{"percent": 100, "soak_s": 0}], "gates": {"min_rows": 0}}
        rollout = str(client.create_rollout(body | plan)["id"])
        client.act(rollout, "start")
    return rollout


def all_serve(fleet: LocalFleet, version: str) -> bool:
    """Whether every device reports that it serves this version."""
    return all(fleet.serving(name) == version for name in fleet.devices)
