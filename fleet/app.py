"""What does the service answer over HTTP? The API by resource and the dashboard, over one open home."""

from fastapi import APIRouter, FastAPI

from fleet.api import blobs, devices, oversight, problems, releases, rollouts, stream, trust
from fleet.api.limits import BodyLimit
from fleet.dashboard.routes import mount
from fleet.services import Services

ROUTERS: tuple[APIRouter, ...] = (
    devices.router,
    trust.router,
    blobs.router,
    releases.router,
    rollouts.router,
    oversight.router,
    stream.router,
)
"""Every resource of the API; the one place where routers are registered."""


def create_app(services: Services) -> FastAPI:
    """The application over an open home. The parts that run beside it are `fleet.service`'s."""
    app = FastAPI(
        title="Edgewright fleet",
        version="1",
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
