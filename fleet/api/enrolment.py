"""What does an enrolment token carry? All a device needs to find this fleet and to recognise it, and the right to join."""

import base64
import json

from fleet.services import Services
from runtime.contract.canonical import sha256_hex


def enrolment_token(services: Services, secret: str) -> str:
    """base64url of {url, ca_sha256, root_sha256, secret}: the digests pin the authority and the trust root."""
    door = services.config.door
    name = f"[{door.names[0]}]" if ":" in door.names[0] else door.names[0]
    content = {
        "url": f"https://{name}:{door.port}",
        "ca_sha256": services.authority.sha256,
        "root_sha256": sha256_hex(services.trust.pinned_root),
        "secret": secret,
    }
    return base64.urlsafe_b64encode(json.dumps(content, sort_keys=True).encode()).decode().rstrip("=")
