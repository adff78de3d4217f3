"""What identity code reports to whoever measures it."""

from __future__ import annotations

from typing import Protocol

from meshgw.identity.spiffe import SpiffeId


class IdentityObserver(Protocol):
    """Receiver of certificate events; its methods return at once and never raise."""

    def certificate_expires(self, identity: SpiffeId, at: float) -> None:
        """`at` is the end of the certificate now in use, in Unix seconds."""

    def certificate_rotated(self, identity: SpiffeId) -> None:
        """A certificate was issued, accepted and published."""

    def rotation_failed(self, identity: SpiffeId, code: str) -> None:
        """No certificate could be had; `code` is that of an `IssueError`, or the name of another exception."""

    def identity_removed(self, identity: SpiffeId) -> None:
        """The certificate of this identity is no longer kept."""


class SilentObserver:
    """An observer that measures nothing."""

    def certificate_expires(self, identity: SpiffeId, at: float) -> None:
        """Do nothing."""

    def certificate_rotated(self, identity: SpiffeId) -> None:
        """Do nothing."""

    def rotation_failed(self, identity: SpiffeId, code: str) -> None:
        """Do nothing."""

    def identity_removed(self, identity: SpiffeId) -> None:
        """Do nothing."""
