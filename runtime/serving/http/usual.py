"""Is this request's head the very one of the request before it on this connection?

A program that asks a model keeps one connection and changes the tensors only: method, address and headers come in the same
bytes each time, and often the JSON part too. What was read from equal bytes is used again, so that most requests are never
parsed; nothing here decides anything that the parser would not have decided.
"""

from typing import NamedTuple

from runtime.serving.http.request import Request

MOST_HEAD_BYTES = 4096


class Usual(NamedTuple):
    """A request to be read next: `size` bytes at first, of which `head` come first. request: without its body.

    comes_apart: the head is read alone, and the body straight into its place; else all of it comes at once.
    """

    size: int
    head: bytes
    request: Request
    body_bytes: int
    comes_apart: bool

    def again(self, body: bytes | memoryview) -> Request:
        """The same request with another body of the same length."""
        return _with(self.request, body)


def learn(head: memoryview, request: Request, body_bytes: int, *, comes_apart: bool) -> Usual | None:
    """What to expect next of a connection after this request; None where its head is too long to be kept."""
    if len(head) > MOST_HEAD_BYTES:
        return None
    size = len(head) if comes_apart else len(head) + body_bytes
    # Of the request a copy without its body, whose memory would be held otherwise.
    return Usual(size, bytes(head), _with(request, b""), body_bytes, comes_apart)


def _with(before: Request, body: bytes | memoryview) -> Request:
    request = Request(caller=before.caller, shares_memory=before.shares_memory)
    request.method, request.target = before.method, before.target
    request.head_length, request.encoding = before.head_length, before.encoding
    request.accept, request.split_key = before.accept, before.split_key
    request.body = body
    return request
