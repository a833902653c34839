"""Who sits in front of the browser? The cookie's ticket leads to a token's row, and the row says name and role."""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from fleet.api.auth import identify_row, require_role
from fleet.control import Actor
from fleet.dashboard.session import COOKIE, LIFETIME_S, NOBODY, Sealer, Ticket, issue
from fleet.errors import CredentialError, ForbiddenError, StaleFormError
from fleet.services import Services


@dataclass(frozen=True)
class Visitor:
    """Someone signed in. csrf: the token every form of theirs must carry."""

    name: str
    role: str
    csrf: str

    @property
    def actor(self) -> Actor:
        return Actor(self.name, self.role)

    @property
    def can_operate(self) -> bool:
        try:
            require_role(self.actor, "operator")
        except ForbiddenError:
            return False
        return True


class Visitors:
    """Knows visitors by their cookie."""

    def __init__(self, services: Services, sealer: Sealer) -> None:
        self._services = services
        self._sealer = sealer

    def require(self, request: Request) -> Visitor:
        """The visitor of this request. Raises CredentialError when nobody is signed in (any more)."""
        ticket = self.ticket(request)
        if ticket is None or ticket.token_id == NOBODY:
            raise CredentialError("sign in first")
        row = identify_row(self._services, ticket.token_id)
        return Visitor(row.name, row.role, self._sealer.form_token(ticket))

    def find(self, request: Request) -> Visitor | None:
        try:
            return self.require(request)
        except CredentialError:
            return None

    def ticket(self, request: Request) -> Ticket | None:
        return self._sealer.open(request.cookies.get(COOKIE), self._now_s())

    def check_form(self, request: Request, csrf: str) -> None:
        """Raises StaleFormError unless the form was made for this very session."""
        ticket = self.ticket(request)
        if ticket is None or not self._sealer.is_form_token(ticket, csrf):
            raise StaleFormError("this form was not made for your current session; open the page again and repeat")

    def admit(self, request: Request, response: Response, token_id: int) -> str:
        """Give the browser a fresh ticket for a token, or for NOBODY; returns its form token."""
        ticket = issue(token_id, self._now_s())
        response.set_cookie(
            COOKIE,
            self._sealer.seal(ticket),
            max_age=LIFETIME_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
            path="/",
        )
        return self._sealer.form_token(ticket)

    def dismiss(self, response: Response) -> None:
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")

    def _now_s(self) -> float:
        return self._services.now_ms() / 1000
