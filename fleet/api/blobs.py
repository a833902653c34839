"""Blobs: payload files on their way in. Devices fetch them from the device door."""

from fastapi import APIRouter, Request, Response
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from fleet.api.auth import Admin, ServicesDep, Viewer
from fleet.errors import UnknownBlobError
from runtime.contract.errors import TooLargeError

router = APIRouter(prefix="/blobs", tags=["releases"])


@router.head("/{sha256}", response_class=Response)
def has_blob(sha256: str, services: ServicesDep, _: Viewer) -> Response:
    size = services.blobs.size(sha256)
    if size is None:
        raise UnknownBlobError(f"there is no blob {sha256}")
    return Response(headers={"content-length": str(size), "etag": f'"{sha256}"'})


@router.put("/{sha256}", response_class=Response)
async def put_blob(sha256: str, request: Request, services: ServicesDep, _: Admin) -> Response:
    """Streamed to disk and checked against its name. 201 when it is new, 200 when it was here; a repeat does no harm.

    Once that is answered it is cut into chunks, so that the first device to ask need not wait for it.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > services.config.limits.blob_bytes:
        raise TooLargeError(f"a blob of {announced} bytes is over the limit of {services.config.limits.blob_bytes}")
    is_held = await run_in_threadpool(services.blobs.size, sha256) is not None
    with services.blobs.upload(sha256) as upload:
        async for chunk in request.stream():
            if not is_held:
                await run_in_threadpool(upload.write, chunk)
        if not is_held:
            await run_in_threadpool(upload.commit)
    return Response(status_code=200 if is_held else 201, background=BackgroundTask(services.blobs.chunk_index, sha256))
