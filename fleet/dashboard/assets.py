"""How do scripts and styles reach the browser so that they can be cached for ever and never be stale?

Every static file is served under the digest of the whole folder: a changed byte changes every address, so an address may
be cached for a year. The files are few and small; hashing them costs some milliseconds once.
"""

import hashlib
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
YEAR_S = 365 * 24 * 3600


class Assets:
    """The static folder under its current digest. `app` is to be mounted at `mount`."""

    def __init__(self, folder: Path = STATIC) -> None:
        self.digest = _digest(folder)
        self.mount = f"/static/{self.digest}"
        self.app = _Immutable(directory=folder)

    def url(self, name: str) -> str:
        return f"{self.mount}/{name}"


class _Immutable(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = f"public, max-age={YEAR_S}, immutable"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        total.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:12]
