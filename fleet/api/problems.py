"""Which HTTP status does each error answer with, and what does the body look like?

Bodies are problem documents (RFC 9457): type, title, status, detail, and our stable `code`. This is the one place that
knows statuses; routers only raise.
"""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fleet import errors
from runtime.contract.errors import ContractError, TooLargeError

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
STATUS: dict[type[Exception], int] = {
    errors.InvalidError: 422,
    errors.UnknownError: 404,
    errors.ConflictError: 409,
    errors.CredentialError: 401,
    errors.ForbiddenError: 403,
    errors.BusyError: 503,
    errors.StoreError: 503,
    errors.StorageFullError: 507,
    errors.SetupError: 503,
    errors.ExternalError: 502,
    errors.FleetError: 500,
    TooLargeError: 413,
    ContractError: 422,
}
"""By the nearest class in an error's line of ancestors."""


def status_of(error: Exception) -> int:
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def problem(status: int, code: str, detail: str) -> JSONResponse:
    body = {
        "type": f"urn:edgewright:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of ours, of the framework and of nobody's with a problem document."""
    app.add_exception_handler(errors.FleetError, _ours)
    app.add_exception_handler(ContractError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)


async def _ours(request: Request, error: Exception) -> Response:
    status = status_of(error)
    if status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
    code = error.code if isinstance(error, errors.FleetError | ContractError) else errors.FleetError.code
    return problem(status, code, str(error))


async def _invalid(_request: Request, error: Exception) -> Response:
    """Name every field that is wrong; the value itself may be a secret and stays out."""
    assert isinstance(error, RequestValidationError)
    found = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
    return problem(422, errors.InvalidError.code, "; ".join(found))


async def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = TooLargeError.code if error.status_code == 413 else f"http.{error.status_code}"
    return problem(error.status_code, code, str(error.detail))


async def _bug(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(500, errors.FleetError.code, "the service met an error of its own; its log has the details")
