"""Who may use the API, and what did they do with it?"""

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet.errors import ConflictError, UnknownError
from fleet.store.tables import ApiToken, Audit

Role = Literal["viewer", "operator", "admin"]


class AccessRepository:
    def __init__(self, session: Session) -> None:
        self._session = session

    def token(self, token_sha256: str) -> ApiToken | None:
        return self._session.scalar(select(ApiToken).where(ApiToken.token_sha256 == token_sha256))

    def token_by_id(self, token_id: int) -> ApiToken | None:
        return self._session.get(ApiToken, token_id)

    def tokens(self) -> Sequence[ApiToken]:
        return self._session.scalars(select(ApiToken).order_by(ApiToken.name)).all()

    def add_token(self, name: str, token_sha256: str, role: Role, now_ms: int, expires_ms: int | None = None) -> ApiToken:
        """Raises ConflictError when the name is taken; the audit log knows people by it."""
        if self._session.scalar(select(ApiToken.id).where(ApiToken.name == name)) is not None:
            raise ConflictError(f"there is a token named {name!r} already")
        row = ApiToken(name=name, token_sha256=token_sha256, role=role, created_ms=now_ms, expires_ms=expires_ms)
        self._session.add(row)
        self._session.flush()
        return row

    def replace_token(self, name: str, token_sha256: str, role: Role, now_ms: int) -> ApiToken:
        """Give a name a new token; the one it had stops working."""
        held = self._session.scalar(select(ApiToken).where(ApiToken.name == name))
        if held is None:
            return self.add_token(name, token_sha256, role, now_ms)
        held.token_sha256, held.role, held.created_ms, held.revoked_ms = token_sha256, role, now_ms, None
        self._session.flush()
        return held

    def revoke_token(self, name: str, now_ms: int) -> None:
        """Raises UnknownError; revoking twice keeps the first time."""
        held = self._session.scalar(select(ApiToken).where(ApiToken.name == name))
        if held is None:
            raise UnknownError(f"there is no token named {name!r}")
        held.revoked_ms = held.revoked_ms or now_ms
        self._session.flush()

    def record(self, actor: str, role: str, action: str, object: str, *, detail: dict[str, Any], now_ms: int) -> None:
        """Write into the audit log, in the transaction of the change itself."""
        self._session.add(Audit(at_ms=now_ms, actor=actor, role=role, action=action, object=object, detail=detail))
        self._session.flush()

    def audit_page(self, before: int | None, limit: int) -> Sequence[Audit]:
        """The audit log from the newest entry on."""
        statement = select(Audit).order_by(Audit.id.desc()).limit(limit)
        return self._session.scalars(statement if before is None else statement.where(Audit.id < before)).all()
