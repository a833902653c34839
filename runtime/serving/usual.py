"""Is this request's head the very one of the request before it on this connection?

A program that asks a model keeps one connection and changes the tensors only: method, address and headers come in the same
bytes each time, and often the JSON part too. What was read from equal bytes is used again, so that most requests are never
parsed; nothing here decides anything that the parser would not have decided.
"""

from typing import NamedTuple

from runtime.serving.request import Request

MOST_HEAD_BYTES = 4096


class Usual(NamedTuple):
    """A request that came whole in one read of `size` bytes, and where its body began."""

    size: int
    head: bytes
    request: Request

    def again(self, body: bytes) -> Request:
        """The same request with another body of the same length."""
        before, request = self.request, Request(shares_memory=self.request.shares_memory)
        request.method, request.target = before.method, before.target
        request.head_length, request.encoding = before.head_length, before.encoding
        request.accept, request.split_key = before.accept, before.split_key
        request.body = body
        return request


def learn(read: memoryview, request: Request) -> Usual | None:
    """What to expect next of a connection whose last read was exactly this request; None where it is too long to be kept."""
    head_bytes = len(read) - len(request.body)
    if head_bytes > MOST_HEAD_BYTES:
        return None
    return Usual(len(read), bytes(read[:head_bytes]), request)
