"""Does the daemon say that it lives only while it does, end when it stands still, and tell of it at its next start?

The supervisor is a real datagram socket, as systemd's is; what it says is checked against sd_notify(3).
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from runtime.exits import EXIT_STUCK
from runtime.notify import Notifier, Supervisor, supervisor
from runtime.watchdog import REASON_FILE, TRACE_FILE, LoopPulse, Watchdog, shortest, stuck_in, take_reason
from tests.support.artifacts import write_artifact
from tests.support.broker import free_port

WAIT_S = 30.0


class Supervising:
    """The end that listens. address: for NOTIFY_SOCKET."""

    def __init__(self, address):
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(WAIT_S)

    def next(self):
        """What the next datagram says, by name."""
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines())

    def until(self, name, value=None):
        while True:
            said = self.next()
            if name in said and value in (None, said[name]):
                return said

    def is_silent(self, for_s):
        self._socket.settimeout(for_s)
        try:
            return not self._socket.recv(4096)
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(WAIT_S)

    def drain(self):
        self._socket.setblocking(False)
        try:
            while self._socket.recv(4096):
                pass
        except BlockingIOError:
            self._socket.settimeout(WAIT_S)

    def close(self):
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def supervising(request, tmp_path):
    address = str(tmp_path / "notify") if request.param == "path" else f"@edgewright-test-{os.getpid()}"
    end = Supervising(address)
    yield end
    end.close()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Supervisor("", 0.0)),
        ({"NOTIFY_SOCKET": "/run/x"}, Supervisor("/run/x", 0.0)),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000"}, Supervisor("/run/x", 30.0)),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, Supervisor("/run/x", 30.0)),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, Supervisor("/run/x", 0.0)),
        ({"WATCHDOG_USEC": "30000000"}, Supervisor("", 0.0)),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "soon"}, Supervisor("/run/x", 0.0)),
    ],
)
def test_who_supervises_is_read_from_the_environment(environment, expected):
    assert supervisor(environment, 7) == expected


def test_what_is_said(supervising):
    notifier = Notifier(supervising.address)
    notifier.ready("serving tiny 1.0.0")
    assert supervising.next() == {"READY": "1", "STATUS": "serving tiny 1.0.0"}
    notifier.status("serving nothing yet")
    assert supervising.next() == {"STATUS": "serving nothing yet"}
    notifier.alive()
    assert supervising.next() == {"WATCHDOG": "1"}
    notifier.stopping(1.5)
    said = supervising.next()
    assert (said["STOPPING"], said["EXTEND_TIMEOUT_USEC"]) == ("1", "1500000")
    notifier.close()
    notifier.alive()
    assert supervising.is_silent(0.05)


@pytest.mark.parametrize("address", ["", "/nowhere/at/all"])
def test_nobody_listening_is_no_error(address):
    notifier = Notifier(address)
    notifier.ready("serving")
    notifier.close()


class Parts:
    """A daemon's parts as the watchdog sees them, with a clock of their own."""

    def __init__(self, tmp_path, own_s=0.0):
        self.now_s = 100.0
        self.why = ""
        self.ends = []
        self.said = []
        notifier = Notifier("")
        notifier._send = lambda *lines: self.said.append(lines[0])
        self.dog = Watchdog(
            [lambda: self.why, lambda: ""],
            notifier,
            tmp_path,
            granted_s=8.0,
            own_s=own_s,
            monotonic_s=lambda: self.now_s,
            end=self.ends.append,
        )

    def look(self, after_s=0.0):
        self.now_s += after_s
        return self.dog.look()


def test_a_sign_of_life_at_every_look_while_everything_moves(tmp_path):
    parts = Parts(tmp_path)
    assert parts.dog.every_s == 2.0  # half of WatchdogSec is the least systemd asks for
    assert [parts.look(2), parts.look(2)] == ["", ""]
    assert parts.said == ["WATCHDOG=1"] * 2
    assert take_reason(tmp_path) == ""


def test_silence_and_a_reason_on_the_disk_when_something_stands_still(tmp_path, capfd):
    parts = Parts(tmp_path)
    parts.why = "an inference has been busy with one thing for 31.0 s"
    for _ in range(5):
        assert parts.look(2) == parts.why
    assert "WATCHDOG=1" not in parts.said
    assert parts.ends == []  # that is the supervisor's to do
    assert "most recent call first" in capfd.readouterr().err
    assert take_reason(tmp_path) == parts.why
    assert take_reason(tmp_path) == ""


def test_what_moves_again_is_forgiven(tmp_path):
    parts = Parts(tmp_path, own_s=10.0)
    parts.why = "stuck"
    parts.look()
    parts.why = ""
    parts.look(4)
    assert parts.said[-1] == "WATCHDOG=1"
    assert not (tmp_path / REASON_FILE).exists()
    parts.why = "stuck again"
    parts.look()
    assert parts.look(4.9) == "stuck again"
    assert parts.ends == []
    parts.look(0.2)
    assert parts.ends == [EXIT_STUCK]
    assert take_reason(tmp_path) == "stuck again"


def test_a_disk_that_takes_no_reason_changes_nothing(tmp_path):
    parts = Parts(tmp_path / "gone", own_s=1.0)
    parts.why = "stuck"
    parts.look()
    parts.look(1)
    assert parts.ends == [EXIT_STUCK]


@pytest.mark.parametrize(
    ("stuck_s", "is_stuck"), [(0.0, False), (29.9, False), (30.0, False), (30.1, True), (float("inf"), True)]
)
def test_a_part_busy_for_longer_than_its_limit(stuck_s, is_stuck):
    assert bool(stuck_in("an inference", lambda: stuck_s, 30.0)()) is is_stuck


def test_a_loop_that_turns_and_one_that_does_not():
    now = [0.0]
    loop = asyncio.new_event_loop()
    pulse = LoopPulse(loop, 1.0, lambda: now[0])
    now[0] = 1.0
    assert pulse() == ""
    now[0] = 1.9
    assert pulse() == ""
    now[0] = 2.1
    assert "has not turned for 1.1 s" in pulse()
    loop.run_until_complete(asyncio.sleep(0))
    assert pulse() == ""
    loop.close()
    assert LoopPulse(loop, 1.0)() == ""


def test_shortest():
    assert (shortest(0, 0), shortest(0, 3), shortest(5, 3, 0)) == (0.0, 3, 3)


def test_no_thread_where_nobody_wants_to_know(tmp_path):
    dog = Watchdog([], Notifier(""), tmp_path, granted_s=0.0, own_s=0.0)
    dog.start()
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}
    dog.stop()


def test_a_trace_alone_tells_of_native_code(tmp_path):
    (tmp_path / TRACE_FILE).write_text("Timeout (0:00:02)!\nThread 0x1 (most recent call first):\n  File x\n")
    assert "held by native code: Timeout (0:00:02)!" in take_reason(tmp_path)


# -- the real daemon


@pytest.fixture
def slot(tmp_path):
    """A state directory that serves one model."""
    directory = tmp_path / "state" / "models" / "tiny"
    write_artifact(directory / "a")
    (directory / "active").symlink_to("a")
    return tmp_path / "state"


@pytest.fixture
def daemon(slot, tmp_path):
    """Start a real daemon under our supervision. prelude: Python that runs in it first."""
    end = Supervising(str(tmp_path / "notify"))
    running = []

    def start(prelude="", granted_s=0.0, **settings):
        environment = {**os.environ, "NOTIFY_SOCKET": end.address}
        if granted_s:
            environment["WATCHDOG_USEC"] = str(int(granted_s * 1e6))
        settings = {"device.state_dir": slot, "serving.port": free_port()} | settings
        flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        program = f"{textwrap.dedent(prelude)}\nimport sys\nfrom runtime.cli import main\nsys.exit(main(sys.argv[1:]))"
        log = (tmp_path / "log").open("ab")
        with log:
            running.append(
                subprocess.Popen([sys.executable, "-c", program, "run", *flags], stdout=log, stderr=log, env=environment)
            )
        return running[-1], end

    yield start
    for process in running:
        process.kill()
        process.wait()
    end.close()


def log_of(tmp_path):
    return (tmp_path / "log").read_text(errors="replace")


BLOCK_LOOP = """
import signal, time
from runtime import daemon
def block(*_):
    time.sleep({for_s})
real = daemon.Daemon._make_watchdog
def make(self, loop):
    loop.add_signal_handler(signal.SIGUSR1, block)
    return real(self, loop)
daemon.Daemon._make_watchdog = make
"""
HOLD_INTERPRETER = BLOCK_LOOP.replace("time.sleep({for_s})", "import ctypes; ctypes.PyDLL(None).sleep(600)")


def test_ready_alive_and_stopping_are_told(daemon, tmp_path):
    process, end = daemon(granted_s=0.4)
    assert end.until("READY") == {"READY": "1", "STATUS": "serving tiny 1.0.0"}
    for _ in range(3):
        assert end.until("WATCHDOG") == {"WATCHDOG": "1"}
    process.send_signal(signal.SIGTERM)
    assert int(end.until("STOPPING")["EXTEND_TIMEOUT_USEC"]) >= 10_000_000
    assert process.wait(WAIT_S) == 0
    assert not (tmp_path / "state" / TRACE_FILE).exists()


def test_no_sign_of_life_from_a_loop_that_stands_still(daemon, tmp_path):
    process, end = daemon(BLOCK_LOOP.format(for_s=2), granted_s=0.4)
    end.until("READY")
    process.send_signal(signal.SIGUSR1)
    assert "event loop has not turned" in end.until("STATUS")["STATUS"]
    end.drain()
    assert end.is_silent(0.5)
    assert end.until("WATCHDOG")  # it turns again
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == 0
    assert "most recent call first" in log_of(tmp_path)


def test_it_ends_itself_and_says_so_at_the_next_start(daemon, tmp_path):
    process, end = daemon(BLOCK_LOOP.format(for_s=600), **{"serving.watchdog_s": 1})
    end.until("READY")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(WAIT_S) == EXIT_STUCK
    process, end = daemon()
    end.until("READY")
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == 0
    assert "the last run was ended because it stood still: the event loop has not turned" in log_of(tmp_path)


@pytest.mark.slow
def test_native_code_that_holds_the_interpreter_is_ended_too(daemon, tmp_path):
    process, end = daemon(HOLD_INTERPRETER, **{"serving.watchdog_s": 1})
    end.until("READY")
    time.sleep(0.5)  # the timer is set at the first look
    process.send_signal(signal.SIGUSR1)
    assert process.wait(WAIT_S) == 1
    assert "held by native code" in take_reason(tmp_path / "state")
