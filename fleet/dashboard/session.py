"""Who is looking, and does a form really come from our own page?

A person signs in once with an API token. The browser then holds a ticket: the token's row id, an expiry and a nonce, sealed
by HMAC-SHA256 under a key of this service. The token itself is not in the cookie, and revoking it ends the session at the
next request, because every request looks the row up again. The cookie is HttpOnly and SameSite=Strict; beyond that every
form carries a CSRF token, a second HMAC over the ticket's nonce. Someone not signed in yet gets a ticket for token 0, so
that the login form is protected the same way, and a fresh nonce at login leaves no ticket to fixate.

Known limit: no session is stored, so signing out removes the cookie but cannot call back a copy of it; that one is good
until it expires or the token is revoked.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

from fleet.files import SECRET, make_folder, write_durably

COOKIE = "edgewright_session"
LIFETIME_S = 12 * 3600
"""One working day; then the token is asked for again."""
NOBODY = 0
KEY_BYTES = 32


@dataclass(frozen=True)
class Ticket:
    """What the cookie says once its seal holds. token_id: row of `api_token`, or NOBODY."""

    token_id: int
    expires_s: int
    nonce: str


def issue(token_id: int, now_s: float) -> Ticket:
    return Ticket(token_id, int(now_s) + LIFETIME_S, secrets.token_urlsafe(16))


class Sealer:
    """Seals tickets and form tokens under one key. Holds no state: a restart or a second worker with the same key agrees."""

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES:
            raise ValueError(f"a session key needs {KEY_BYTES} bytes, this one has {len(key)}")
        self._key = key

    def seal(self, ticket: Ticket) -> str:
        body = f"{ticket.token_id}.{ticket.expires_s}.{ticket.nonce}"
        return f"{body}.{self._mac('ticket', body)}"

    def open(self, cookie: str | None, now_s: float) -> Ticket | None:
        """The ticket, or None when the cookie is absent, malformed, forged or expired: all the same to the caller."""
        body, _, mac = (cookie or "").rpartition(".")
        if not hmac.compare_digest(mac.encode(), self._mac("ticket", body).encode()):
            return None
        token_id, expires_s, nonce = body.split(".")
        ticket = Ticket(int(token_id), int(expires_s), nonce)
        return ticket if ticket.expires_s > now_s else None

    def form_token(self, ticket: Ticket) -> str:
        return self._mac("form", f"{ticket.token_id}.{ticket.nonce}")

    def is_form_token(self, ticket: Ticket, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.form_token(ticket).encode())

    def _mac(self, purpose: str, body: str) -> str:
        return hmac.new(self._key, f"{purpose}:{body}".encode(), hashlib.sha256).hexdigest()


def load_key(path: Path) -> bytes:
    """The service's session key; made at the first start. Losing it only signs everyone out."""
    if not path.exists():
        make_folder(path.parent, 0o700)
        write_durably(path, secrets.token_bytes(KEY_BYTES), SECRET)
    return path.read_bytes()


def safe_next(given: str) -> str:
    """Where to go after login: a path of ours, never another site (which "//host" and "/\\host" would be)."""
    is_local = given.startswith("/") and not given.startswith(("//", "/\\")) and given.isprintable()
    return given if is_local else "/"
