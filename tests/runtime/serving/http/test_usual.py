"""Is a request whose head repeats the last one's answered as if it had been parsed, and any other parsed?"""

import asyncio

import pytest

from runtime.serving.http.protocol import Hub, Response
from runtime.serving.limits import LimitSettings


class Wire(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.written = b""
        self.is_closed = False

    def write(self, data):
        self.written += bytes(data)

    def close(self):
        self.is_closed = True

    abort = close

    def is_closing(self):
        return self.is_closed

    def can_write_eof(self):
        return False

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


class Client:
    """One connection whose requests are noted and answered with their bodies."""

    def __init__(self, **limits):
        self.seen = []
        self.hub = Hub(LimitSettings(**limits), self.answer, lambda error: Response(400, b"", [str(error).encode()]))
        self.connection = self.hub.connection()
        self.wire = Wire()
        self.connection.connection_made(self.wire)
        self.parsed = 0
        begin = self.connection.on_message_begin

        def counting():
            self.parsed += 1
            begin()

        self.connection.on_message_begin = counting
        # httptools looks the callbacks up when the parser is made.
        self.connection._parser = type(self.connection._parser)(self.connection)

    def answer(self, request):
        self.seen.append((request.method, request.target, request.head_length, request.split_key, bytes(request.body)))
        return Response(200, b"", [bytes(request.body)])

    def send(self, *pieces):
        for piece in pieces:
            self.hub.buffer[: len(piece)] = piece
            self.connection.buffer_updated(len(piece))


def post(body, path=b"/x", headers=b""):
    return b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n%b\r\n%b" % (path, len(body), headers, body)


def test_a_repeated_head_is_not_parsed_again_and_its_body_is_new():
    client = Client()
    key = b"Edgewright-Split-Key: u1\r\nInference-Header-Content-Length: 2\r\n"
    client.send(post(b"one", headers=key), post(b"two", headers=key), post(b"six", headers=key))
    assert client.seen == [(b"POST", b"/x", 2, b"u1", body) for body in (b"one", b"two", b"six")]
    assert client.parsed == 1
    assert client.wire.written.count(b"HTTP/1.1 200") == 3
    assert client.hub.buffered_bytes == 0


@pytest.mark.parametrize(
    "other",
    [
        post(b"two", path=b"/y"),
        post(b"four"),
        post(b"two", headers=b"Edgewright-Split-Key: u2\r\n"),
        b"GET /x HTTP/1.1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n",
    ],
)
def test_another_head_is_parsed_and_so_is_what_follows_it(other):
    client = Client()
    client.send(post(b"one"), other, post(b"one"))
    assert client.parsed == 3
    assert [body for *_, body in client.seen][::2] == [b"one", b"one"]


def test_requests_in_pieces_or_together_are_parsed():
    client = Client()
    request = post(b"one")
    client.send(request, request[:10], request[10:], request + request, request)
    assert [body for *_, body in client.seen] == [b"one"] * 5
    assert client.parsed == 5


@pytest.mark.parametrize("header", [b"Connection: close\r\n", b"Expect: 100-continue\r\n"])
def test_a_last_or_expecting_request_teaches_nothing(header):
    client = Client()
    client.send(post(b"one", headers=header))
    assert client.connection._usual is None


def test_a_repeated_head_counts_against_all_bodies_together():
    client = Client(buffered_bytes=4)
    client.send(post(b"one"))
    client.hub.buffered_bytes = 2
    client.send(post(b"two"))
    assert client.wire.written.count(b"HTTP/1.1 200") == 1
    assert b"HTTP/1.1 400" in client.wire.written
    assert client.hub.buffered_bytes == 2
