"""Serve an application on a free port of loopback, in a thread: what tests talk to is real HTTP."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

START_LIMIT_S = 20.0


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Yields the base URL once the service answers, and stops it at the end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + START_LIMIT_S
            while not server.started:
                assert thread.is_alive(), "the service stopped while it started"
                assert time.monotonic() < deadline, f"the service did not start within {START_LIMIT_S} s"
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(START_LIMIT_S)
