"""The REST API below /api/v1: routers by resource, one place for credentials and one for errors."""
