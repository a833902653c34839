"""Releases: publish one, list them, look into one."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from fleet import publication
from fleet.api.auth import Admin, ServicesDep, Viewer
from fleet.api.models import View
from fleet.api.paging import Cursor, Limit, Page, number, page
from fleet.api.trust import TrustRequest
from fleet.services import Services
from fleet.store.releases import ReleaseRepository
from fleet.store.tables import Artifact

router = APIRouter(prefix="/releases", tags=["releases"])


class ReleaseRequest(TrustRequest):
    """A signed release whose blobs were uploaded before. metadata: model-NAME, and targets when it is the model's first."""

    model: Annotated[str, Field(max_length=40)]
    version: Annotated[str, Field(max_length=64)]


class ReleaseView(View):
    model: str
    version: str
    role_version: int
    published_ms: int
    published_by: str


class ArtifactView(BaseModel):
    """One target of a release; manifest and evidence are the signed documents, as JSON."""

    target: str
    sha256: str
    engine: str
    size_bytes: int
    manifest: dict[str, Any]
    evidence: dict[str, Any] | None


class ReleaseDetail(ReleaseView):
    artifacts: list[ArtifactView]


@router.post("", status_code=201)
def publish(body: ReleaseRequest, services: ServicesDep, actor: Admin) -> ReleaseDetail:
    """409 release.race: fetch the metadata, sign again. 409 release.conflict: the name is taken by other content, for ever."""
    publication.publish(services, body.model, body.version, body.upload(), actor)
    return _detail(services, body.model, body.version)


@router.get("")
def list_releases(services: ServicesDep, _: Viewer, limit: Limit = 100, cursor: Cursor = None) -> Page[ReleaseView]:
    """Newest first."""
    with services.database.read() as session:
        rows = ReleaseRepository(session).page(number(cursor), limit + 1)
        return page(rows, limit, ReleaseView.model_validate, lambda row: row.id)


@router.get("/{model}/{version}")
def get_release(model: str, version: str, services: ServicesDep, _: Viewer) -> ReleaseDetail:
    return _detail(services, model, version)


def _detail(services: Services, model: str, version: str) -> ReleaseDetail:
    with services.database.read() as session:
        repository = ReleaseRepository(session)
        release = ReleaseView.model_validate(repository.get(model, version))
        return ReleaseDetail(**release.model_dump(), artifacts=_artifacts(repository.artifacts(model, version)))


def _artifacts(rows: Sequence[Artifact]) -> list[ArtifactView]:
    return [
        ArtifactView(
            target=row.target,
            sha256=row.sha256,
            engine=row.engine,
            size_bytes=row.size_bytes,
            manifest=json.loads(row.manifest),
            evidence=json.loads(row.evidence) if row.evidence is not None else None,
        )
        for row in rows
    ]
