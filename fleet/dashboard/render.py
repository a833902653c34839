"""How does a view model become a page, and what may that page do in a browser?

Autoescaping is on for every template. The Content-Security-Policy lets a page load only our own files and run only our own
script files: text a device sends can neither become markup nor, if it did, run or call home.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse

from fleet.dashboard.assets import Assets
from fleet.dashboard.visitors import Visitor

TEMPLATES = Path(__file__).parent / "templates"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True)
class Live:
    """What keeps a page fresh: the notices it watches ("kind" or "kind:id"), and the least pause between two updates."""

    watch: tuple[str, ...]
    pause_ms: int = 500


class Renderer:
    """Owns the templates. Safe to share between threads."""

    def __init__(self, assets: Assets, fleet_name: str) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {"asset": assets.url, "fleet_name": fleet_name}

    def page(
        self,
        request: Request,
        template: str,
        context: Mapping[str, Any],
        *,
        visitor: Visitor | None,
        section: str = "",
        live: Live | None = None,
        status: int = 200,
    ) -> HTMLResponse:
        """Render one page. section: which entry of the navigation is current."""
        shared = {"visitor": visitor, "section": section, "live": live, "own_url": _own_url(request)}
        html = self._environment.get_template(template).render({**shared, **context})
        return HTMLResponse(html, status, HEADERS)

    def problem(self, request: Request, visitor: Visitor | None, status: int, code: str, detail: str) -> HTMLResponse:
        """The page for an error, with the code that the API would answer with."""
        context = {"status": status, "title": HTTPStatus(status).phrase, "detail": detail, "code": code}
        return self.page(request, "error.html", context, visitor=visitor, status=status)


def _own_url(request: Request) -> str:
    """Path and query, for a page to fetch itself again."""
    return f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
