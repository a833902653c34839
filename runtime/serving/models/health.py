"""How does one version fare while it serves? What an update's probation and the watchdog decide by."""

from typing import NamedTuple


class Health(NamedTuple):
    """requests, errors: since it was opened. p50_ns: half of the requests took less in the engine; 0 while unknown.

    rows: examples in the requests that were answered, so rows / (requests - errors) came with one.

    failure: why the version is broken for good, such as "engine.hung: ..."; "" while it is not. One that is set stays.
    """

    requests: int = 0
    errors: int = 0
    p50_ns: int = 0
    failure: str = ""
    rows: int = 0
