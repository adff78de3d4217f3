"""What can go wrong with an API server; no message holds a token or a key."""

from __future__ import annotations


class AccessError(Exception):
    """There is no usable configuration for an API server; the message says what is missing or wrong."""


class ApiError(Exception):
    """The API server's refusal: `status` is the HTTP status, `reason` the machine-readable word of its Status object.

    `retry_after` is what the server asks to wait, in seconds, 0 if it asks nothing.
    """

    def __init__(self, status: int, reason: str = "", message: str = "", *, retry_after: float = 0.0) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class UnreachableError(ConnectionError):
    """The API server was not reached, or the connection to it broke."""


class IdleError(UnreachableError):
    """A watch was silent for longer than it may be."""


class NamelessError(Exception):
    """An object does not say which one it is."""
