"""Why a certificate could not be had. No message or code here ever holds a token or key material."""

from __future__ import annotations


class IssueError(Exception):
    """No certificate this time; `code` is a short constant for metrics and tests."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class CaUnavailableError(IssueError):
    """The CA gave no answer, or a passing failure, on every try; `code` is the last gRPC status name."""


class CaRefusedError(IssueError):
    """The CA refused the request for good; `code` is the gRPC status name."""


class AnswerRefusedError(IssueError):
    """The CA answered with something that must not be used.

    Codes: `BAD_ANSWER`, `KEY_MISMATCH`, `IDENTITY_MISMATCH`, `NOT_VALID_NOW`, `UNTRUSTED_CHAIN`.
    """


class CredentialsError(IssueError):
    """The token or the roots could not be read; `code` is `TOKEN_UNREADABLE` or `ROOTS_UNREADABLE`."""
