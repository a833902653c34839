"""What does a caller see of a failure? A gRPC status, the text with our stable code in it, and the code as metadata."""

import logging

import grpc

from runtime.errors import (
    DaemonError,
    EngineCrashedError,
    EngineHungError,
    ForbiddenError,
    MethodError,
    ModelNotFoundError,
    RequestError,
    RequestTimeoutError,
    RequestTooLargeError,
    RouteNotFoundError,
    UnavailableError,
)

log = logging.getLogger(__name__)

CODE_KEY = "edgewright-code"
"""Trailing metadata under this key holds the error's stable code."""
_STATUS_OF: tuple[tuple[type[DaemonError], grpc.StatusCode], ...] = (
    (RequestTooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (RequestTimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (ModelNotFoundError, grpc.StatusCode.NOT_FOUND),
    (ForbiddenError, grpc.StatusCode.PERMISSION_DENIED),
    (RouteNotFoundError, grpc.StatusCode.UNIMPLEMENTED),
    (MethodError, grpc.StatusCode.UNIMPLEMENTED),
    (RequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (UnavailableError, grpc.StatusCode.UNAVAILABLE),
    (EngineCrashedError, grpc.StatusCode.UNAVAILABLE),
    (EngineHungError, grpc.StatusCode.UNAVAILABLE),
)
"""The first class an error belongs to decides; everything else is INTERNAL."""


def status_of(error: Exception) -> tuple[grpc.StatusCode, str, str]:
    """Status, text and stable code. An error that is not ours is a bug: it is logged, and its text stays here."""
    if isinstance(error, DaemonError):
        status = next((status for kind, status in _STATUS_OF if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
        return status, f"{error} [{error.code}]", error.code
    log.error("a request failed unexpectedly", exc_info=error)
    return grpc.StatusCode.INTERNAL, f"internal error [{DaemonError.code}]", DaemonError.code
