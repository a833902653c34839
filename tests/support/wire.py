"""A wire between a client and a server on this machine that counts what goes over it and is cut when a test says so."""

import contextlib
import socket
import threading

_PIECE_BYTES = 16 * 1024


class Wire:
    """Listens on a port of its own and passes every byte on. Nothing of the protocol is known here, so TLS goes through.

    received_bytes: what clients got, TLS included; connections: how many there were. cut_every: bytes after which a
    connection is cut, `cuts_left` times.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self.received_bytes = 0
        self.connections = 0
        self.cut_every: int | None = None
        self.cuts_left = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stop(self) -> None:
        # A blocked accept is woken by the shutdown, not by the close, of its socket.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for end in self._open:
            _cut(end)
        for thread in self._threads:
            thread.join()
        for end in (*self._open, self._listener):
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                # Small buffers: a wire holds little, and what it holds when it is cut was paid for and never arrived.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE_BYTES)
                server = socket.create_connection(("127.0.0.1", self._to))
                self.connections += 1
                self._open += [client, server]
                for work in (lambda a=client, b=server: self._up(a, b), lambda a=client, b=server: self._down(a, b)):
                    self._threads.append(threading.Thread(target=work))
                    self._threads[-1].start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_PIECE_BYTES):
                server.sendall(data)
        _cut(server)

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := server.recv(_PIECE_BYTES):
                client.sendall(data)
                self.received_bytes += len(data)
                passed += len(data)
                if self.cut_every and self.cuts_left and passed >= self.cut_every:
                    self.cuts_left -= 1
                    _cut(server)
                    break
        _cut(client)


def _cut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
