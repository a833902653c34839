"""What did the service refuse, and why?

ApiError                 code and status as the service sent them in its problem document
└── UnreachableError     api.unreachable: no answer at all, after the retries an idempotent call gets

One class serves for every refusal: what a caller does next depends on `code`, and new codes must not need a new client.
"""


class ApiError(Exception):
    """The service answered with an error. status: HTTP; code: stable and dotted; detail: for people."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{detail} [{code}]" if detail else code)
        self.status = status
        self.code = code
        self.detail = detail


class UnreachableError(ApiError):
    """Nothing answered: refused, timed out, or cut off. `status` is 0."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(0, "api.unreachable", f"no answer from {url}: {reason}")
