"""Who is asking, and may they?

A bearer token in the Authorization header, stored as its sha256: a token carries 256 random bits, so there is nothing to
guess and no need for a slow hash. Roles: a viewer reads, an operator also moves rollouts and lets devices in, an admin also
bars devices, publishes and hands out tokens. The dashboard's login checks its token here too.
"""

import hashlib
import secrets
from collections.abc import Callable
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from fleet.control import Actor
from fleet.errors import CredentialError, ForbiddenError
from fleet.services import Services
from fleet.store.access import AccessRepository, Role
from fleet.store.tables import ApiToken

RANKS: dict[str, int] = {"viewer": 1, "operator": 2, "admin": 3}
TOKEN_PREFIX = "ew_"
"""Lets a scanner find one that leaked."""

_bearer = HTTPBearer(auto_error=False, description="An API token: `fleet token create`")


def new_token() -> str:
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def services(request: Request) -> Services:
    """The open home behind this request."""
    return cast("Services", request.app.state.services)


ServicesDep = Annotated[Services, Depends(services)]


def identify(found: Services, token: str) -> ApiToken:
    """The row of a token that is good now. Raises CredentialError."""
    with found.database.read() as session:
        return _good(AccessRepository(session).token(hash_token(token)), found.now_ms())


def identify_row(found: Services, token_id: int) -> ApiToken:
    """The same by the row's id, for a session that began with the token. Raises CredentialError."""
    with found.database.read() as session:
        return _good(AccessRepository(session).token_by_id(token_id), found.now_ms())


def require_role(actor: Actor, role: Role) -> None:
    """Raise ForbiddenError unless the actor's role reaches this one."""
    if RANKS.get(actor.role, 0) < RANKS[role]:
        raise ForbiddenError(f"{actor.name} is {actor.role}; this takes {role}")


def _asking(found: ServicesDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Actor:
    if credentials is None:
        raise CredentialError("send an API token: `Authorization: Bearer …`")
    row = identify(found, credentials.credentials)
    return Actor(row.name, row.role)


def _at_least(role: Role) -> Callable[[Actor], Actor]:
    def check(actor: Annotated[Actor, Depends(_asking)]) -> Actor:
        require_role(actor, role)
        return actor

    return check


Viewer = Annotated[Actor, Depends(_at_least("viewer"))]
Operator = Annotated[Actor, Depends(_at_least("operator"))]
Admin = Annotated[Actor, Depends(_at_least("admin"))]


def _good(row: ApiToken | None, now_ms: int) -> ApiToken:
    if row is None or row.revoked_ms is not None or (row.expires_ms is not None and row.expires_ms <= now_ms):
        raise CredentialError("the API token is unknown, expired or revoked")
    return row
