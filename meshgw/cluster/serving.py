"""The xDS server's certificate: from a CA of its own that lives in a Secret, or from a Secret that others fill.

Keys are in memory and in those Secrets only. Each replica looks after its own certificate; what proxies should trust
is the same at all of them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from meshgw.api.meta import Key
from meshgw.cluster import roots
from meshgw.cluster.roots import Plan, RootsError, Served
from meshgw.identity.certificate import PrivateKeyPem, bundle_pem
from meshgw.identity.clock import Clock, SystemClock
from meshgw.identity.signer import Signer
from meshgw.kube.client import AccessError, ApiError, Client, resource_path
from meshgw.observe.log import get_logger

OWN_SECRET: Final = "meshgw-xds-ca"  # noqa: S105 - the name of one
GIVEN_SECRET: Final = "meshgw-xds-tls"  # noqa: S105 - the name of one
LOOK: Final = 30.0
"""Seconds between looks at the Secret."""
FIRST_RETRY: Final = 1.0
PROPAGATION: Final = timedelta(minutes=3)
"""How long kubelets and proxies take to have a new bundle; until then a given certificate of another CA waits."""

_TRIES: Final = 5
_SPKI: Final = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

_log = get_logger("xds")


class ServingError(Exception):
    """There is no certificate to be had; the message names the Secret and what is wrong with it."""


class Source(Protocol):
    """Where the server's certificate comes from."""

    async def refresh(self, now: datetime) -> None:
        """Look at the Secret; raises `ServingError`, or what a request to the API server raises."""

    def served(self, now: datetime) -> Served | None:
        """Return what to show and trust now, by all that was seen so far; None if there is nothing yet."""


class ExpiryObserver(Protocol):
    """Receiver of the end of certificates."""

    def certificate_expires(self, identity: object, at: float) -> None:
        """`at` is the end of the certificate now in use, in Unix seconds."""


class ServingCertificate:
    """Key and certificate of the server, kept fresh while `run` runs; `ready` is set once there is one.

    `on_trust` gets the roots that proxies should trust, in PEM, whenever they change: before the server shows a
    certificate that only the new ones vouch for.
    """

    def __init__(
        self,
        source: Source,
        *,
        on_trust: Callable[[bytes], None],
        observer: ExpiryObserver | None = None,
        clock: Clock | None = None,
        look: float = LOOK,
    ) -> None:
        self.ready = asyncio.Event()
        self._source = source
        self._on_trust = on_trust
        self._observer = observer
        self._clock: Clock = clock or SystemClock()
        self._look = look
        self._served: Served | None = None
        self._problem = ""

    async def run(self) -> None:
        """Keep it fresh until cancelled. Without a Secret or API server the certificate in use stays."""
        delay = FIRST_RETRY
        while True:
            now = self._clock.now()
            try:
                await self._source.refresh(now)
            except (ServingError, ApiError, AccessError, ConnectionError) as error:
                delay = min(self._look, delay * 2)
                self._complain(str(error))
            else:
                delay = self._look
                self._problem = ""
            if served := self._source.served(now):
                self._adopt(served)
            await self._clock.sleep(delay * (1 + 0.1 * self._clock.jitter()))

    def current(self) -> tuple[bytes, bytes]:
        """The private key and the certificate chain, both PEM, for the next handshake; raises before `ready`."""
        if self._served is None:
            raise ServingError("there is no certificate yet")
        return self._served.key.reveal(), self._served.chain

    @property
    def trust(self) -> bytes:
        """The roots proxies should trust, in PEM; empty before `ready`."""
        return self._served.trust if self._served else b""

    def _complain(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            _log.warning("the certificate of xDS is not looked after", error=problem)

    def _adopt(self, served: Served) -> None:
        before, self._served = self._served, served
        if before is None or before.trust != served.trust:
            self._on_trust(served.trust)
        if before is None or before.chain != served.chain:
            _log.info("certificate for xDS", ends=served.ends.isoformat())
            if self._observer is not None:
                self._observer.certificate_expires("xds", served.ends.timestamp())
        self.ready.set()


class OwnAuthority:
    """Certificates from roots in a Secret, which is made when it is missing and changed when roots come and go.

    Whoever is first writes; the others take what they find. A Secret that vanished is written again with the same
    roots by a replica that still has them. One that is not understood is left alone.
    """

    def __init__(self, client: Client, secret: Key, names: Sequence[str], *, plan: Plan | None = None) -> None:
        self._client = client
        self._secret = secret
        self._names = tuple(names)
        self._plan = plan or Plan()
        self._roots: tuple[Signer, ...] = ()  # as the Secret has them: no other signs
        self._served: Served | None = None

    async def refresh(self, now: datetime) -> None:
        """Take over the roots in the Secret, having changed them if it is time to; see `Source`."""
        for _ in range(_TRIES):
            stored = await _read(self._client, self._secret)
            found = self._decode(stored)
            wanted = roots.renew(found or self._roots, now, self._plan)
            if found:
                self._roots = found
            if stored is not None and [*map(roots.name_of, wanted)] == [*map(roots.name_of, found)]:
                return
            try:
                await self._write(stored, wanted)
            except ApiError as error:
                if error.status not in {404, 409}:
                    raise
                continue  # somebody else wrote
            self._roots = wanted
            return
        raise ServingError(f"Secret {self._secret} changes all the time")

    def served(self, now: datetime) -> Served | None:
        """Return the certificate in use, or the next one when it is due; see `Source`."""
        alive = [root for root in self._roots if now < root.ends]
        if alive and (self._served is None or roots.is_due(self._served, alive, now, self._plan)):
            self._served = roots.issue(alive, self._names, now, self._plan)
        return self._served

    def _decode(self, stored: _Secret | None) -> tuple[Signer, ...]:
        try:
            return roots.decode(stored.content() if stored else {})
        except (RootsError, ServingError) as error:
            raise ServingError(f"Secret {self._secret} is not understood and left alone: {error}") from None

    async def _write(self, stored: _Secret | None, wanted: Sequence[Signer]) -> None:
        """Create the Secret, or replace exactly the version that was read."""
        data = {name: base64.b64encode(value).decode() for name, value in roots.encode(wanted).items()}
        metadata: dict[str, Any] = {"name": self._secret.name, "namespace": self._secret.namespace}
        method, name = "POST", ""
        if stored is not None:
            metadata, method, name = dict(stored.metadata), "PUT", self._secret.name
        body = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": data}
        path = resource_path("v1", "secrets", namespace=self._secret.namespace, name=name)
        await self._client.request(method, path, body=msgspec.json.encode(body))
        _log.info("roots of xDS written", secret=str(self._secret), roots=len(wanted))


class GivenSecret:
    """A certificate that others, such as cert-manager, keep in a Secret: `tls.crt`, `tls.key`, and `ca.crt`.

    When its CA changes, proxies are told to trust the new one first, and the former for a while.
    """

    def __init__(self, client: Client, secret: Key, *, overlap: timedelta = roots.OVERLAP) -> None:
        self._client = client
        self._secret = secret
        self._overlap = overlap
        self._current: _Given | None = None
        self._next: _Given | None = None
        self._next_at = datetime.max.replace(tzinfo=UTC)
        self._former: dict[x509.Certificate, datetime] = {}

    async def refresh(self, now: datetime) -> None:
        """Take note of what is in the Secret; see `Source`."""
        stored = await _read(self._client, self._secret)
        if stored is None:
            raise ServingError(f"Secret {self._secret} does not exist")
        try:
            given = _parse(stored.content())
        except ServingError as error:
            raise ServingError(f"Secret {self._secret} is of no use: {error}") from None
        if given.ends <= now:
            raise ServingError(f"the certificate in Secret {self._secret} ended at {given.ends.isoformat()}")
        if self._current is None or given == self._current:
            self._current, self._next = given, None
        elif given != self._next:
            known = set(self._current.roots) >= set(given.roots)
            self._next, self._next_at = given, now if known else now + PROPAGATION

    def served(self, now: datetime) -> Served | None:
        """Return the certificate, the former one as long as proxies may not know the new one's CA; see `Source`."""
        if self._current is None:
            return None
        if self._next is not None and now >= min(self._next_at, self._current.ends):
            self._former |= dict.fromkeys(self._current.roots, now + self._overlap)
            self._current, self._next = self._next, None
        self._former = {root: until for root, until in self._former.items() if now < until}
        trusted = {*self._current.roots, *(self._next.roots if self._next else ()), *self._former}
        trust = bundle_pem(sorted(trusted, key=lambda root: (root.not_valid_before_utc, root.serial_number)))
        return Served(self._current.key, self._current.chain, trust, self._current.ends)


def server_names(service: Key) -> tuple[str, ...]:
    """The DNS names under which pods reach a Service, the one that proxies use first."""
    name = f"{service.name}.{service.namespace}"
    return f"{name}.svc", name, f"{name}.svc.cluster.local"


class _Given(msgspec.Struct, frozen=True):
    key: PrivateKeyPem
    chain: bytes
    roots: tuple[x509.Certificate, ...]
    ends: datetime


class _Secret(msgspec.Struct, frozen=True):
    metadata: Mapping[str, Any]
    data: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return "_Secret(hidden)"

    def content(self) -> dict[str, bytes]:
        """The data; raises `ServingError` if it is not base64."""
        try:
            return {name: base64.b64decode(value, validate=True) for name, value in self.data.items()}
        except binascii.Error:
            raise ServingError("its data is not base64") from None


async def _read(client: Client, secret: Key) -> _Secret | None:
    """The Secret, None if it does not exist."""
    path = resource_path("v1", "secrets", namespace=secret.namespace, name=secret.name)
    try:
        body = await client.request("GET", path)
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    try:
        return msgspec.json.decode(body, type=_Secret)
    except msgspec.MsgspecError:
        raise ServingError(f"the answer about Secret {secret} is not a Secret") from None


def _parse(data: Mapping[str, bytes]) -> _Given:
    chain = _certificates(data, "tls.crt")
    authorities = _certificates(data, roots.BUNDLE)
    pem = data.get("tls.key", b"")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ServingError("tls.key is not a private key in PEM without a passphrase") from None
    if key.public_key().public_bytes(*_SPKI) != chain[0].public_key().public_bytes(*_SPKI):
        raise ServingError("tls.key is not the key of tls.crt")
    return _Given(PrivateKeyPem(pem), bundle_pem(chain), tuple(authorities), chain[0].not_valid_after_utc)


def _certificates(data: Mapping[str, bytes], name: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data.get(name, b""))
    except ValueError:
        raise ServingError(f"{name} is missing or not certificates in PEM") from None
