"""How does the daemon tell its supervisor that it is ready, alive, or about to stop?

The protocol of systemd's sd_notify(3): lines in one datagram to the socket named by $NOTIFY_SOCKET. Whoever else speaks it may
supervise as well; where nobody listens, nothing is sent.
"""

import logging
import socket
from collections.abc import Mapping
from typing import NamedTuple

log = logging.getLogger(__name__)

_US = 1_000_000


class Supervisor(NamedTuple):
    """Who supervises this process, by its environment. address: "" for nobody; watchdog_s: 0 where no sign of life is wanted."""

    address: str = ""
    watchdog_s: float = 0.0


def supervisor(environment: Mapping[str, str], pid: int) -> Supervisor:
    """environment: of the process; pid: its own, for the watchdog may be meant for another."""
    watched = environment.get("WATCHDOG_USEC", "")
    is_meant = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
    address = environment.get("NOTIFY_SOCKET", "")
    return Supervisor(address, int(watched) / _US if address and watched.isdecimal() and is_meant else 0.0)


class Notifier:
    """Sends to one supervisor; safe to share between threads. Never raises: a deaf supervisor must not stop the daemon."""

    def __init__(self, address: str) -> None:
        """address: of a unix datagram socket, "@name" for an abstract one, "" for nobody."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        if self._socket is not None:
            self._socket.setblocking(False)

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """One line for people, as `systemctl status` shows it."""
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def stopping(self, within_s: float) -> None:
        """The stop begins; open requests are answered first, which may take this long."""
        self._send("STOPPING=1", "STATUS=answering open requests", f"EXTEND_TIMEOUT_USEC={int(within_s * _US)}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("the supervisor does not hear %s: %s", lines[0], error)
