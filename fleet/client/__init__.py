"""How does another program talk to the fleet service? Through `Client`; only the contract and an HTTP client are imported."""

from fleet.client.client import Client
from fleet.client.errors import ApiError, UnreachableError

__all__ = ["ApiError", "Client", "UnreachableError"]
