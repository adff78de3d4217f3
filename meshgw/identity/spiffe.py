"""SPIFFE ids of workloads in the form Istio uses: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`."""

from __future__ import annotations

import re
from typing import Final, Self

import msgspec

SCHEME: Final = "spiffe://"
DEFAULT_TRUST_DOMAIN: Final = "cluster.local"

_MAX_URI: Final = 2048
_MAX_TRUST_DOMAIN: Final = 255
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]+")
_SEGMENT: Final = re.compile(r"[a-zA-Z0-9._-]+")
_ACCOUNT_PREFIX: Final = ("system", "serviceaccount")


class SpiffeError(ValueError):
    """A text that is not a SPIFFE id, a trust domain or a service account."""


class SpiffeId(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """The identity of one service account; every instance is valid (SPIFFE-ID 2, else `SpiffeError`)."""

    trust_domain: str
    namespace: str
    service_account: str

    def __post_init__(self) -> None:
        check_trust_domain(self.trust_domain)
        for name, segment in (("namespace", self.namespace), ("service account", self.service_account)):
            if not _SEGMENT.fullmatch(segment) or segment in {".", ".."}:
                raise SpiffeError(f"{name} {segment!r} cannot be part of a SPIFFE id")
        if len(self.uri) > _MAX_URI:
            raise SpiffeError(f"a SPIFFE id has at most {_MAX_URI} characters")

    def __str__(self) -> str:
        return self.uri

    @property
    def uri(self) -> str:
        """The id as it stands in the URI SAN of a certificate."""
        return f"{SCHEME}{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Return the id that `uri` spells; raises `SpiffeError`."""
        match uri.removeprefix(SCHEME).split("/") if uri.startswith(SCHEME) else ():
            case [trust_domain, "ns", namespace, "sa", service_account]:
                return cls(trust_domain=trust_domain, namespace=namespace, service_account=service_account)
        raise SpiffeError(f"{uri!r} is not {SCHEME}<trust domain>/ns/<namespace>/sa/<service account>")

    @classmethod
    def of_account(cls, trust_domain: str, subject: str) -> Self:
        """Return the id of the Kubernetes user name `system:serviceaccount:<ns>:<sa>`; raises `SpiffeError`."""
        match subject.split(":"):
            case [system, kind, namespace, service_account] if (system, kind) == _ACCOUNT_PREFIX:
                return cls(trust_domain=trust_domain, namespace=namespace, service_account=service_account)
        raise SpiffeError(f"{subject!r} is not system:serviceaccount:<namespace>:<service account>")

    @property
    def account(self) -> str:
        """The Kubernetes user name of this service account, the `sub` of its tokens."""
        return ":".join((*_ACCOUNT_PREFIX, self.namespace, self.service_account))


def check_trust_domain(trust_domain: str) -> str:
    """Return `trust_domain` if it is one (SPIFFE-ID 2.1: lower case, no port, no user, 255 at most)."""
    if len(trust_domain) > _MAX_TRUST_DOMAIN or not _TRUST_DOMAIN.fullmatch(trust_domain):
        raise SpiffeError(f"{trust_domain!r} is not a trust domain")
    return trust_domain
