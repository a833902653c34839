"""Which schema versions does this side write, and which can it read?

A schema's number rises only when an older reader would misread the new form. Adding a field is no such change:
readers keep the bytes they received and ignore what they do not know (see `canonical.Received`).
"""

from runtime.contract.errors import UnsupportedVersionError

MANIFEST_SCHEMA = 1
REFERENCE_SCHEMA = 1
TOPIC_VERSION = 1

_READABLE = {"manifest": {1}, "evidence": {1}, "reference": {1}}


def require_readable(kind: str, schema: int) -> None:
    """Raise UnsupportedVersionError unless documents of `kind` with this schema number can be read here."""
    if schema not in _READABLE[kind]:
        known = ", ".join(map(str, sorted(_READABLE[kind])))
        raise UnsupportedVersionError(f"{kind} has schema {schema}; this version reads {known}. Update edgewright here.")
