"""Trust: the service's public keys, the metadata as it is, and new root and targets."""

import base64
import binascii

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from fleet import publication
from fleet.api.auth import Admin, ServicesDep, Viewer
from fleet.api.models import Request
from fleet.errors import InvalidError
from fleet.trust.acceptance import Upload

router = APIRouter(prefix="/trust", tags=["trust"])


class TrustRequest(Request):
    """Bytes in base64. metadata: by role; documents: by TUF target path."""

    metadata: dict[str, str]
    documents: dict[str, str] = Field(default_factory=dict)

    def upload(self) -> Upload:
        """Raises InvalidError for what is not base64."""
        return Upload(decoded(self.metadata), decoded(self.documents))


class ServiceKeysAnswer(BaseModel):
    """Ed25519 public keys, 32 raw bytes in hexadecimal."""

    snapshot: str
    timestamp: str
    director: str


class TrustAnswer(BaseModel):
    """authorized: whether the service may now sign what it has to."""

    versions: dict[str, int]
    authorized: bool


@router.get("/service")
def service_keys(services: ServicesDep, _: Viewer) -> ServiceKeysAnswer:
    """What `toolchain keys authorize` names in root and director.json."""
    return ServiceKeysAnswer(**services.trust.keys.public())


@router.get("/metadata/{role}", response_class=Response)
def metadata(role: str, services: ServicesDep, _: Viewer) -> Response:
    """The newest metadata of root, targets or model-NAME, byte for byte as it was signed."""
    return Response(services.trust.newest(role), media_type="application/json")


@router.post("")
def authorize(body: TrustRequest, services: ServicesDep, actor: Admin) -> TrustAnswer:
    """Authorise this service, rotate keys, or renew root and targets. Repeating it changes nothing."""
    versions = publication.authorize(services, body.upload(), actor)
    return TrustAnswer(versions=versions, authorized=services.trust.is_authorized())


def decoded(parts: dict[str, str]) -> dict[str, bytes]:
    try:
        return {name: base64.b64decode(text, validate=True) for name, text in parts.items()}
    except (binascii.Error, ValueError) as error:
        raise InvalidError(f"metadata and documents are base64: {error}") from error
