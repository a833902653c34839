"""What is one HTTP request, once it is complete?"""


class Request:
    """One complete request. head_length: value of Inference-Header-Content-Length, or None without one.

    encoding, accept, split_key: values of Content-Encoding, Accept-Encoding and Edgewright-Split-Key, b"" without one.
    body: read-only; a large one lies in memory that is used again once nothing refers to it.
    caller: the same for all of one connection. shares_memory: whether it came by a way whose clients may share memory with
    this process.
    """

    __slots__ = (
        "accept",
        "body",
        "caller",
        "encoding",
        "expects_continue",
        "head_length",
        "is_last",
        "method",
        "shares_memory",
        "split_key",
        "target",
    )

    def __init__(self, *, caller: int, shares_memory: bool) -> None:
        self.caller = caller
        self.shares_memory = shares_memory
        self.method = b""
        self.target = b""
        self.body: bytes | memoryview = b""
        self.head_length: int | None = None
        self.encoding = b""
        self.accept = b""
        self.split_key = b""
        self.expects_continue = False
        self.is_last = False
