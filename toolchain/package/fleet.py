"""How does a refusal by the fleet become one of the toolchain's own errors?"""

from collections.abc import Iterator
from contextlib import contextmanager

from fleet.client import ApiError, UnreachableError
from toolchain.errors import ConflictError, FleetError, FleetRefusedError, RaceError

_REFUSALS = ("trust.", "contract.", "auth.", "release.")


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Around calls to the fleet. Raises FleetError, FleetRefusedError, ConflictError or RaceError in place of ApiError."""
    try:
        yield
    except UnreachableError as error:
        raise FleetError(error.detail) from error
    except ApiError as error:
        raise _translated(url, error) from error


def _translated(url: str, error: ApiError) -> FleetError:
    if error.code == RaceError.code:
        return RaceError(error.detail)
    if error.code == ConflictError.code:
        return ConflictError(f"{url}: {error.detail}")
    if error.code.startswith(_REFUSALS) or error.status in (401, 403):
        return FleetRefusedError(f"{url} refused: {error}")
    return FleetError(f"{url} answered {error.status}: {error}")
