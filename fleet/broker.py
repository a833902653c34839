"""How does the system's mosquitto become this fleet's broker, and stay up?

`Broker` writes its configuration and access list, runs it, and starts it again when it dies. Everything the broker holds
is also in the database or comes again from the devices, so a broken persistence file is put aside, not mourned: the
publisher sends every desired state anew after each reconnect.

Who may do what follows from `topics.DELIVERY`: the certificate's common name is the user name and, forced, the client id,
so that no device can take over another's session. A revoked device is denied every topic from the next reload on, in
sessions that are open already too. With `mode = "external"` a broker somewhere else is used as it is; it has to trust the
fleet's authority and enforce the same rules (`HOME/broker/access.list` spells them out).
"""

import asyncio
import contextlib
import logging
import os
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from fleet.config import BrokerSection
from fleet.errors import BrokerError, MissingProgramError
from fleet.files import SECRET, make_folder, write_durably
from fleet.pki import INGEST, PUBLISHER, RECONCILER, KeyPair, service_name
from runtime.contract.canonical import TELEMETRY_LIMIT
from runtime.contract.topics import DELIVERY, PACKET_LIMIT, PREFIX, SESSION_EXPIRY_S

log = logging.getLogger(__name__)

INSTALL_HINT = "install it: apt-get install mosquitto (Debian, Ubuntu), brew install mosquitto (macOS)"
START_LIMIT_S = 10.0
STOP_LIMIT_S = 5.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 15.0
STABLE_S = 30.0
"""A broker that lived this long had started well: the next pause is the first one again."""
INFLIGHT = 1000
"""Unacknowledged messages on their way to one client: two batches of the ingest."""
QUEUED_MESSAGES = 200_000
QUEUED_BYTES = 256 * 1024 * 1024
"""Per client; only the ingest's queue ever grows. 10,000 devices with a window a minute fill it in 20 minutes of outage."""
OPEN_FILES = 65_536
SAVE_AFTER_CHANGES = 500
"""mosquitto rewrites its whole file each time; what a crash loses between two saves is published again anyway."""


class Broker:
    """The broker this service runs (mode "supervised") or relies on ("external")."""

    def __init__(
        self,
        folder: Path,
        section: BrokerSection,
        fleet: str,
        *,
        authority: Path,
        server: KeyPair,
        revoked: Callable[[], Iterable[str]],
    ) -> None:
        """authority: the CA certificate clients must have theirs from; revoked: ids of devices to deny, read at every (re)load."""
        self.host, self.port = section.host, section.port
        self._folder = folder
        self._section = section
        self._fleet = fleet
        self._authority = authority
        self._server = server
        self._revoked = revoked
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.restarts = 0

    @property
    def is_supervised(self) -> bool:
        return self._section.mode == "supervised"

    async def start(self) -> None:
        """Up and accepting connections when this returns. Raises MissingProgramError or BrokerError."""
        await asyncio.to_thread(self._write_access)
        if not self.is_supervised:
            return
        program = find_program(self._section.program)
        await asyncio.to_thread(self._prepare)
        await self._run(program)
        self._supervisor = asyncio.create_task(self._supervise(program), name="broker-supervisor")

    async def stop(self) -> None:
        """End the broker this service runs; mosquitto saves its state on the way."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_LIMIT_S)
            except TimeoutError:
                log.warning("mosquitto did not end within %.0f s and is killed", STOP_LIMIT_S)
                self._process.kill()
                await self._process.wait()

    async def reload_access(self) -> None:
        """Bring the access list up to date after a device was revoked; open sessions feel it at once."""
        await asyncio.to_thread(self._write_access)
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGHUP)

    @property
    def is_running(self) -> bool:
        """Whether our mosquitto runs; an external broker is for its owner to know."""
        return not self.is_supervised or self.pid is not None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def database(self) -> Path:
        """mosquitto's persistence file."""
        return self._folder / "mosquitto.db"

    def _write_access(self) -> None:
        make_folder(self._folder, 0o700)
        write_durably(self._folder / "access.list", access_list(self._fleet, self._revoked()).encode(), SECRET)

    def _prepare(self) -> None:
        _end_leftover(self._folder)
        _raise_open_files()
        text = configuration(self._folder, self.host, self.port, authority=self._authority, server=self._server)
        write_durably(self._folder / "mosquitto.conf", text.encode(), SECRET)
        (self._folder / "mosquitto.log").write_bytes(b"")

    async def _run(self, program: str) -> None:
        """Start mosquitto; if it refuses to and has a persistence file, once more without that."""
        try:
            await self._spawn(program)
        except BrokerError as error:
            if not self.database.exists():
                raise
            log.warning("%s; its persistence file is put aside as %s.bad", error, self.database)
            self.database.replace(self.database.with_suffix(".db.bad"))
            await self._spawn(program)

    async def _spawn(self, program: str) -> None:
        self._require_free_port()
        with (self._folder / "mosquitto.log").open("ab") as sink:
            # A session of its own: Ctrl-C in the service's terminal must not end the broker before the service says so.
            self._process = await asyncio.create_subprocess_exec(
                program, "-c", str(self._folder / "mosquitto.conf"), stdout=sink, stderr=sink, start_new_session=True
            )
        (self._folder / "mosquitto.pid").write_text(str(self._process.pid))
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            if self._process.returncode is not None:
                break
            if await _answers(self.host, self.port):
                return
            await asyncio.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        raise BrokerError(f"mosquitto does not start: {_last_line(self._folder / 'mosquitto.log')}")

    async def _supervise(self, program: str) -> None:
        pause = FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            assert self._process is not None
            status = await self._process.wait()
            if time.monotonic() - began > STABLE_S:
                pause = FIRST_PAUSE_S
            log.warning("mosquitto ended with status %s; starting it again in %.1f s", status, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            self.restarts += 1
            try:
                await self._run(program)
            except (BrokerError, OSError) as error:  # OSError: the program itself is gone, as in the middle of an upgrade
                log.error("%s", error)

    def _require_free_port(self) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                raise BrokerError(f"the broker cannot listen on {self.host}:{self.port}: {error.strerror}") from error


def find_program(given: str = "") -> str:
    """The mosquitto program: as configured, on PATH, or where distributions put it off a normal user's PATH. Raises MissingProgramError."""
    found = (
        shutil.which(given)
        if given
        else shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")
    )
    if found is None:
        raise MissingProgramError(f"{given or 'mosquitto'} is not installed; {INSTALL_HINT}")
    return found


def access_list(fleet: str, revoked: Iterable[str]) -> str:
    """mosquitto's access list for this fleet: each side writes what `topics.DELIVERY` gives it and reads the other's."""
    publisher: list[str] = []
    ingest: list[str] = []
    reconciler: list[str] = []
    patterns: list[str] = []
    for channel, delivery in DELIVERY.items():
        branch = channel.value + ("/+" if delivery.has_id else "")
        if delivery.to_device:
            publisher.append(f"topic write {PREFIX}/{fleet}/+/{branch}")
            patterns.append(f"pattern read {PREFIX}/{fleet}/%u/{branch}")
        else:
            reader = reconciler if delivery.retained else ingest
            reader.append(f"topic read {PREFIX}/{fleet}/+/{branch}")
            patterns.append(f"pattern write {PREFIX}/{fleet}/%u/{branch}")
    parts = [
        [f"user {service_name(PUBLISHER)}", *publisher],
        [f"user {service_name(INGEST)}", *ingest],
        [f"user {service_name(RECONCILER)}", *reconciler],
        *([f"user {device}", "topic deny #"] for device in sorted(revoked)),
        patterns,
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def configuration(folder: Path, host: str, port: int, *, authority: Path, server: KeyPair) -> str:
    """mosquitto.conf. Source of every option: mosquitto.conf(5) of 2.0."""
    lines = [
        f"listener {port} {host}",
        f"cafile {authority}",
        f"certfile {server.certificate}",
        f"keyfile {server.key}",
        "tls_version tlsv1.2",
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "allow_anonymous false",
        f"acl_file {folder / 'access.list'}",
        f"message_size_limit {TELEMETRY_LIMIT}",
        f"max_packet_size {PACKET_LIMIT}",
        f"max_inflight_messages {INFLIGHT}",
        f"max_queued_messages {QUEUED_MESSAGES}",
        f"max_queued_bytes {QUEUED_BYTES}",
        f"persistent_client_expiration {SESSION_EXPIRY_S // 86_400}d",
        "persistence true",
        f"persistence_location {folder}/",
        "persistence_file mosquitto.db",
        "autosave_on_changes true",
        f"autosave_interval {SAVE_AFTER_CHANGES}",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "connection_messages false",
    ]
    if os.geteuid() == 0:
        lines.append("user root")  # started by root it would become user mosquitto, who cannot read our keys
    return "\n".join(lines) + "\n"


async def _answers(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


def _end_leftover(folder: Path) -> None:
    """End a mosquitto that outlived a killed service: it is ours if it runs with our configuration file."""
    try:
        pid = int((folder / "mosquitto.pid").read_text())
    except (OSError, ValueError):
        return
    if not _runs_with(pid, folder / "mosquitto.conf"):
        return
    log.warning("a mosquitto of an earlier run (pid %d) is still there and is ended", pid)
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_LIMIT_S
    while _runs_with(pid, folder / "mosquitto.conf") and time.monotonic() < deadline:
        time.sleep(0.02)
    if _runs_with(pid, folder / "mosquitto.conf"):
        os.kill(pid, signal.SIGKILL)


def _runs_with(pid: int, configuration_file: Path) -> bool:
    """Whether this process has our file on its command line (which a zombie no longer has)."""
    try:
        return os.fsencode(configuration_file) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _raise_open_files() -> None:
    """mosquitto inherits our limit, and the usual soft one of 1,024 files is that many devices."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it says nothing"
