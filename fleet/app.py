"""How do the parts become one service?

`create_app` makes the API over an open home; `assemble` adds the parts that run beside it: broker, publisher, ingest,
device door, scheduler, drift watch. They start in that order and stop in reverse, so that nothing loses its ground first.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from fastapi import APIRouter, FastAPI

from fleet.api import devices, oversight, problems, rollouts, stream
from fleet.api.limits import BodyLimit
from fleet.dashboard.routes import mount
from fleet.services import Services

ROUTERS: tuple[APIRouter, ...] = (
    devices.router,
    rollouts.router,
    oversight.router,
    stream.router,
)
"""Every resource of the API; the one place where routers are registered."""


class Part(Protocol):
    """Something that runs while the service runs."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


def create_app(services: Services, parts: Sequence[Part] = ()) -> FastAPI:
    """The API and the dashboard over an open home, running `parts` as long as it serves; closes the home at the end."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as running:
            running.callback(services.close)
            for part in parts:
                await part.start()
                running.push_async_callback(part.stop)
            yield

    app = FastAPI(
        title="Edgewright fleet",
        version="1",
        lifespan=lifespan,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # its page would load scripts from another site
        redoc_url=None,
    )
    app.state.services = services
    problems.install(app)
    app.add_middleware(BodyLimit, limit=services.config.limits.body_bytes)
    for router in ROUTERS:
        app.include_router(router, prefix="/api/v1")
    mount(app, services)
    return app
