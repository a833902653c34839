"""Does a long body reach its handler whole, aligned and alone in its memory, however it comes?"""

import numpy as np
import pytest

from runtime.serving.http.protocol import PLACED_BYTES
from runtime.serving.places import ALIGNMENT, MOST_BYTES, Places
from tests.runtime.serving.http.test_usual import Client, post

LONG = bytes(range(256)) * (PLACED_BYTES // 256 + 3)
TENSORS_AT = 101
HEADERS = b"Inference-Header-Content-Length: %d\r\n" % TENSORS_AT


class Sender(Client):
    """Sends as a socket does: so much at a time, into the memory that the connection asks to have filled."""

    def __init__(self, **limits):
        super().__init__(**limits)
        self.bodies = []
        self.reads = 0

    def answer(self, request):
        self.bodies.append(request.body)
        return super().answer(request)

    def flow(self, sent, most=1 << 20):
        while sent:
            buffer = self.connection.get_buffer(-1)
            count = min(len(buffer), most, len(sent))
            buffer[:count] = sent[:count]
            self.connection.buffer_updated(count)
            sent = sent[count:]
            self.reads += 1

    @property
    def texts(self):
        return [text for *_, text in self.seen]


def address(memory, ahead=0):
    return np.frombuffer(memory, np.uint8).__array_interface__["data"][0] + ahead


@pytest.mark.parametrize("most", [1 << 20, 4096, 1_001])
def test_long_bodies_come_whole_whatever_the_reads(most):
    client = Sender()
    bodies = [LONG, LONG[::-1], b"short", LONG[:-7], LONG]
    for body in bodies:
        client.flow(post(body, headers=HEADERS), most)
    assert client.texts == bodies
    assert client.wire.written.count(b"HTTP/1.1 200") == len(bodies)
    assert (client.hub.buffered_bytes, client.hub.placed_bytes) == (0, 0)


def test_a_repeated_long_request_takes_two_reads_and_no_parsing():
    client = Sender()
    for _ in range(4):
        client.flow(post(LONG, headers=HEADERS))
    assert client.parsed == 1
    assert client.reads <= 2 * 4
    assert client.texts == [LONG] * 4


def test_the_first_tensor_is_aligned_and_the_body_read_only():
    client = Sender()
    for _ in range(3):
        client.flow(post(LONG, headers=HEADERS))
    for body in client.bodies:
        assert address(body, TENSORS_AT) % ALIGNMENT == 0
        assert body.readonly


def test_long_requests_one_behind_another_are_answered_in_order():
    client = Sender()
    client.flow(post(LONG) + post(b"short") + post(LONG[::-1]) + b"GET /x HTTP/1.1\r\n\r\n" + post(LONG))
    client.flow(post(LONG))
    assert client.texts == [LONG, b"short", LONG[::-1], b"", LONG, LONG]


@pytest.mark.parametrize("cut", [150, 5000])
def test_a_client_that_leaves_in_the_middle_leaves_nothing(cut):
    client = Sender()
    client.flow(post(LONG))
    client.flow(post(LONG)[:cut])
    client.connection.connection_lost(None)
    assert (client.hub.buffered_bytes, client.hub.placed_bytes) == (0, 0)
    assert client.texts == [LONG]


@pytest.mark.parametrize("before", [0, 1])
def test_bodies_in_places_count_against_all_together_as_they_come(before):
    client = Sender(buffered_bytes=len(LONG))
    for _ in range(before):
        client.flow(post(LONG))
    client.hub.buffered_bytes += 4096
    client.flow(post(LONG), 2048)
    assert b"too many request bodies" in client.wire.written
    assert (client.hub.buffered_bytes, client.hub.placed_bytes) == (4096, 0)
    assert len(client.seen) == before


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(LONG), LONG), LONG),
        (post(LONG, headers=b"Connection: close\r\n"), LONG),
        (post(LONG, headers=b"Connection: upgrade\r\nUpgrade: h2c\r\n"), b""),  # what follows is of the other protocol
    ],
)
def test_what_only_the_parser_can_end_is_left_to_it(request_, found):
    client = Sender()
    client.flow(request_, 3000)
    assert client.texts == [found]
    assert all(isinstance(body, bytes) for body in client.bodies)


def test_more_than_may_be_reserved_does_without_a_place():
    client = Sender()
    client.hub.placed_bytes = 4 * MOST_BYTES
    client.flow(post(LONG))
    assert client.texts == [LONG]
    assert isinstance(client.bodies[0], bytes)
    client.hub.placed_bytes = 0
    client.flow(post(LONG))
    assert isinstance(client.bodies[1], memoryview)


def test_memory_is_used_again_only_when_nothing_refers_to_it():
    places = Places()
    first = places.take(1000)
    where = address(first)
    held = np.frombuffer(first.toreadonly(), np.uint8)[5:]
    del first
    second = places.take(1000)
    assert abs(address(second) - where) >= 1000
    del held
    where = address(second)
    del second
    assert address(places.take(900)) == where


def test_memory_nobody_asks_for_goes_back():
    places = Places()
    places.take(1000)
    places.sweep()
    assert places._spare.size
    places.sweep()
    assert not places._spare.size
