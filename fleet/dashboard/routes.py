"""Which addresses does the dashboard answer, and with what?

Handlers read in one transaction, hand the facts to a view and render its template; they decide nothing. Buttons go through
`RolloutControl`, as the REST API does. `mount` puts everything into the service's application.
"""

from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, Depends, FastAPI, Form, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from fastapi.routing import APIRoute

from fleet.api.auth import identify, require_role
from fleet.api.problems import status_of
from fleet.dashboard.assets import Assets
from fleet.dashboard.live import stream
from fleet.dashboard.reading.devices import read_device
from fleet.dashboard.reading.drift import read_device_drift, read_fleet_drift
from fleet.dashboard.reading.overview import read_overview, read_rollouts
from fleet.dashboard.reading.releases import read_release, read_releases
from fleet.dashboard.reading.rollouts import read_rollout
from fleet.dashboard.render import Live, Renderer
from fleet.dashboard.session import NOBODY, Sealer, load_key, safe_next
from fleet.dashboard.views.devices import device_page
from fleet.dashboard.views.drift import drift_page, drift_rows
from fleet.dashboard.views.overview import overview_page
from fleet.dashboard.views.releases import release_page, release_rows
from fleet.dashboard.views.rollout import rollout_page
from fleet.dashboard.views.rollouts import rollout_card
from fleet.dashboard.visitors import Visitor, Visitors
from fleet.domain.rollout import RolloutEvent
from fleet.errors import BusyError, ConflictError, CredentialError, FleetError, InvalidError
from fleet.services import KEYS, Services
from fleet.store.access import AccessRepository
from runtime.contract.errors import ContractError

SESSION_KEY = "dashboard.key"
CALM_MS = 1_500
"""Pause between updates of pages about the whole fleet, where something changes all the time."""
RELEASES_LIVE = Live(("release", "rollout", "device"), CALM_MS)


class Dashboard:
    """What the handlers share."""

    def __init__(self, services: Services) -> None:
        """Blocks: reads the static files and, at the first start, makes the session key."""
        self.services = services
        self.assets = Assets()
        self.visitors = Visitors(services, Sealer(load_key(services.config.home / KEYS / SESSION_KEY)))
        self.render = Renderer(self.assets, services.config.fleet.name)

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self.services.now_ms() / 1000


def mount(app: FastAPI, services: Services) -> None:
    """Add the dashboard's pages and static files to the application. Blocks briefly, see `Dashboard`."""
    dashboard = Dashboard(services)
    app.state.dashboard = dashboard
    app.mount(dashboard.assets.mount, dashboard.assets.app, name="static")
    app.include_router(router)


def _dashboard(request: Request) -> Dashboard:
    found: Dashboard = request.app.state.dashboard
    return found


class PageRoute(APIRoute):
    """Answers an error with a page rather than a problem document; whoever is not signed in is led to the login."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            try:
                return await handle(request)
            except CredentialError:
                return _to_login(request)
            except (FleetError, ContractError) as error:
                return await anyio.to_thread.run_sync(_problem, request, status_of(error), error.code, str(error))
            except RequestValidationError as error:
                fields = ", ".join(str(item["loc"][-1]) for item in error.errors())
                return await anyio.to_thread.run_sync(_problem, request, 422, InvalidError.code, f"not valid here: {fields}")

        return handle_page


router = APIRouter(route_class=PageRoute, include_in_schema=False, default_response_class=HTMLResponse)
DashboardDep = Annotated[Dashboard, Depends(_dashboard)]


@dataclass(frozen=True)
class Visit:
    """One request of someone who is signed in."""

    request: Request
    dashboard: Dashboard
    visitor: Visitor

    @property
    def services(self) -> Services:
        return self.dashboard.services

    @property
    def now(self) -> float:
        return self.dashboard.now

    def show(self, template: str, section: str, live: Live, status: int = 200, **context: Any) -> HTMLResponse:
        render = self.dashboard.render
        return render.page(self.request, template, context, visitor=self.visitor, section=section, live=live, status=status)


def _visit(request: Request, dashboard: DashboardDep) -> Visit:
    return Visit(request, dashboard, dashboard.visitors.require(request))


VisitDep = Annotated[Visit, Depends(_visit)]
Csrf = Annotated[str, Form(max_length=200)]
"""Absent and empty are the same to the check: refused."""


@router.get("/login")
def show_login(request: Request, dashboard: DashboardDep, next: Annotated[str, Query(max_length=2000)] = "/") -> Response:
    if dashboard.visitors.find(request) is not None:
        return RedirectResponse(safe_next(next), 303)
    return _login_page(request, dashboard, next)


@router.post("/login")
def log_in(
    request: Request,
    dashboard: DashboardDep,
    token: Annotated[str, Form(max_length=200)],
    csrf: Csrf = "",
    next: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    dashboard.visitors.check_form(request, csrf)
    try:
        row = identify(dashboard.services, token.strip())
    except CredentialError as error:
        return _login_page(request, dashboard, next, problem=f"{error}.", status=401)
    with dashboard.services.database.write() as session:
        access = AccessRepository(session)
        access.record(row.name, row.role, "session.login", row.name, detail={}, now_ms=dashboard.services.now_ms())
    response = RedirectResponse(safe_next(next), 303)
    dashboard.visitors.admit(request, response, row.id)
    return response


@router.post("/logout")
def log_out(request: Request, dashboard: DashboardDep, csrf: Csrf = "") -> Response:
    dashboard.visitors.check_form(request, csrf)
    response = RedirectResponse("/login", 303)
    dashboard.visitors.dismiss(response)
    return response


@router.get("/")
def show_fleet(
    visit: VisitDep,
    only: Annotated[str, Query(max_length=20)] = "",
    q: Annotated[str, Query(max_length=100)] = "",
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> Response:
    with visit.services.database.read() as session:
        facts = read_overview(session, only=only, search=q.strip(), page=page)
    view = overview_page(facts, only=only, search=q, page=page, now=visit.now)
    return visit.show("overview.html", "fleet", Live(("device", "rollout", "alert", "drift", "window"), CALM_MS), page=view)


@router.get("/devices/{device}")
def show_device(visit: VisitDep, device: str, span: Annotated[str, Query(max_length=10)] = "") -> Response:
    with visit.services.database.read() as session:
        facts = read_device(session, device, span=span, now_ms=visit.services.now_ms())
    live = Live((f"device:{device}", f"window:{device}", f"event:{device}", f"drift:{device}", "alert"))
    return visit.show("device.html", "fleet", live, page=device_page(facts, visit.now))


@router.get("/devices/{device}/drift")
def show_device_drift(visit: VisitDep, device: str) -> Response:
    with visit.services.database.read() as session:
        facts = read_device_drift(session, visit.services.blobs, device)
    live = Live((f"drift:{device}", f"device:{device}"), CALM_MS)
    return visit.show("device_drift.html", "drift", live, page=drift_page(facts, visit.now))


@router.get("/drift")
def show_drift(visit: VisitDep) -> Response:
    with visit.services.database.read() as session:
        facts = read_fleet_drift(session)
    return visit.show("drift.html", "drift", Live(("drift",), CALM_MS), rows=drift_rows(facts, visit.now))


@router.get("/releases")
def show_releases(visit: VisitDep) -> Response:
    with visit.services.database.read() as session:
        facts = read_releases(session)
    base_url = str(visit.request.base_url).rstrip("/")
    return visit.show("releases.html", "releases", RELEASES_LIVE, rows=release_rows(facts, visit.now), base_url=base_url)


@router.get("/releases/{model}/{version}")
def show_release(visit: VisitDep, model: str, version: str) -> Response:
    with visit.services.database.read() as session:
        facts = read_release(session, model, version)
    return visit.show("release.html", "releases", RELEASES_LIVE, page=release_page(facts, visit.now))


@router.get("/rollouts")
def show_rollouts(visit: VisitDep) -> Response:
    with visit.services.database.read() as session:
        facts = read_rollouts(session)
    cards = [rollout_card(one, visit.now) for one in facts]
    return visit.show("rollouts.html", "rollouts", Live(("rollout",), CALM_MS), cards=cards)


@router.get("/rollouts/{rollout}")
def show_rollout(visit: VisitDep, rollout: str) -> Response:
    return _rollout_page(visit, rollout)


@router.post("/rollouts/{rollout}/{action}")
def act_on_rollout(
    visit: VisitDep,
    rollout: str,
    action: Literal["start", "pause", "resume", "approve", "rollback"],
    csrf: Csrf = "",
) -> Response:
    """A refusal is shown on the rollout's own page, beside the state that explains it."""
    visit.dashboard.visitors.check_form(visit.request, csrf)
    require_role(visit.visitor.actor, "operator")
    try:
        visit.services.control.act(rollout, RolloutEvent(action), visit.visitor.actor)
    except (ConflictError, InvalidError) as error:
        return _rollout_page(visit, rollout, refusal=error)
    return RedirectResponse(f"/rollouts/{quote(rollout, safe='')}", 303)


@router.get("/live")
async def follow(
    request: Request,
    dashboard: DashboardDep,
    watch: Annotated[str, Query(max_length=400)],
    pause_ms: Annotated[int, Query(ge=100, le=60_000)] = CALM_MS,
) -> StreamingResponse:
    """Server-sent events for one open page; see `live`."""
    services = dashboard.services
    await anyio.to_thread.run_sync(dashboard.visitors.require, request)
    if services.changes.listeners >= services.config.limits.stream_clients:
        raise BusyError(f"{services.changes.listeners} live pages are open already, which is the limit")

    async def still_welcome() -> bool:
        return await anyio.to_thread.run_sync(dashboard.visitors.find, request) is not None

    events: AsyncIterator[str] = stream(services.changes, frozenset(watch.split(",")), pause_ms / 1000, still_welcome)
    return StreamingResponse(
        events, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


def _rollout_page(visit: Visit, rollout: str, refusal: FleetError | None = None) -> HTMLResponse:
    with visit.services.database.read() as session:
        facts = read_rollout(session, rollout)
    view = rollout_page(facts, can_operate=visit.visitor.can_operate, now=visit.now)
    problem = {"detail": str(refusal), "code": refusal.code} if refusal else None
    status = status_of(refusal) if refusal else 200
    own = f"/rollouts/{quote(rollout, safe='')}"
    return visit.show(
        "rollout.html", "rollouts", Live((f"rollout:{rollout}", "event", "device")), status, page=view, problem=problem, own=own
    )


def _login_page(request: Request, dashboard: Dashboard, next: str, problem: str = "", status: int = 200) -> Response:
    """The form needs the token of the very ticket that is sent along, so the ticket is made first."""
    carrier = Response()
    csrf = dashboard.visitors.admit(request, carrier, NOBODY)
    context = {"csrf": csrf, "next": safe_next(next), "problem": problem}
    page = dashboard.render.page(request, "login.html", context, visitor=None, status=status)
    page.headers["set-cookie"] = carrier.headers["set-cookie"]
    return page


def _to_login(request: Request) -> Response:
    """A page's own refresh cannot follow a redirect usefully, so htmx is told to leave the page instead."""
    here = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
    login = f"/login?next={quote(here if request.method == 'GET' else '/', safe='')}"
    if request.url.path == "/live":
        return Response(status_code=401)
    if request.headers.get("hx-request"):
        return Response(status_code=401, headers={"HX-Redirect": "/login"})
    return RedirectResponse(login, 303)


def _problem(request: Request, status: int, code: str, detail: str) -> Response:
    dashboard = _dashboard(request)
    visitor = dashboard.visitors.find(request)
    return dashboard.render.problem(request, visitor, status, code, detail)
