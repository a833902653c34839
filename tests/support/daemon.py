"""A real daemon in a process of its own: started, asked, stopped or killed."""

import http.client
import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from runtime.enroll import enroll, read_token
from runtime.update.machine import Job
from tests.support.broker import free_port
from tests.support.store import Door

WAIT_S = 60.0


class DaemonProcess:
    """state_dir must hold an identity already, if any. settings: "section.key" -> value."""

    def __init__(self, state_dir: Path, *, log: Path | None = None, **settings: object) -> None:
        self.state_dir = state_dir
        self.port = free_port()
        self._log_path = log or state_dir.with_name(state_dir.name + ".log")
        self._settings = {"device.state_dir": state_dir, "serving.port": self.port, "update.reserve_bytes": 0} | settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, prelude: str = "") -> "DaemonProcess":
        """Start the process. prelude: Python that runs in it first, to make it die or fail at a chosen point."""
        flags = [part for key, value in self._settings.items() for part in ("--set", f"{key}={value}")]
        program = f"{prelude}\nimport sys\nfrom runtime.cli import main\nsys.exit(main(sys.argv[1:]))"
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-c", program, "run", *flags], stdout=log, stderr=log)
        return self

    def wait_for_end(self) -> int:
        """Wait until it dies by itself. Returns its status, negative for a signal."""
        assert self._process is not None
        return self._process.wait(WAIT_S)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """As a power cut would end it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(WAIT_S)

    def log(self) -> str:
        return self._log_path.read_text()

    def infer(self, rows: np.ndarray, model: str = "tiny") -> np.ndarray:
        """Scores by HTTP. Raises OSError while nothing listens, LookupError while the model is not served."""
        body = {"inputs": [{"name": "input", "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}]}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", f"/v2/models/{model}/infer", json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise LookupError(answer)
        output = answer["outputs"][0]
        return np.array(output["data"]).reshape(output["shape"])

    def wait_until(self, accepts, what: str, timeout_s: float = WAIT_S):
        """Poll until accepts() answers something true; connection errors count as not yet."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            try:
                if result := accepts():
                    return result
            except (OSError, LookupError, sqlite3.OperationalError):
                if self._process is not None and self._process.poll() is not None:
                    raise AssertionError(f"the daemon ended with {self._process.returncode}:\n{self.log()}") from None
            time.sleep(0.02)
        raise AssertionError(f"not within {timeout_s} s: {what}\n{self.log()}")

    def job(self, model: str = "tiny") -> Job | None:
        """The newest update, as state.db has it."""
        with sqlite3.connect(f"file:{self.state_dir / 'state.db'}?mode=ro", uri=True) as db:
            rows = db.execute("SELECT body FROM job WHERE model = ?", (model,)).fetchall()
        db.close()
        return msgspec.msgpack.decode(rows[0][0], type=Job) if rows else None


def enrolled(state_dir: Path, door: Door, device: str) -> Path:
    """A state directory with an identity of its own, made by real enrolment."""
    state_dir.mkdir(parents=True, exist_ok=True)
    enroll(state_dir, read_token(door.token()), device)
    return state_dir
