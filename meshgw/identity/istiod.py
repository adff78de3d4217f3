"""Client of an Istio CA: one call, a fresh key in, an accepted certificate out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
import structlog
from cryptography import x509
from google.protobuf.message import DecodeError

from meshgw.identity.address import AddressError, CaAddress
from meshgw.identity.certificate import WorkloadCertificate, accept_answer, bundle_pem, make_csr, make_key
from meshgw.identity.clock import Clock, SystemClock
from meshgw.identity.errors import AnswerRefusedError, CaRefusedError, CaUnavailableError, CredentialsError
from meshgw.identity.protocol import PATH, CertificateRequest, CertificateResponse
from meshgw.identity.spiffe import SpiffeId
from meshgw.identity.tokens import TokenSource

ISTIOD_NAME: Final = "istiod.istio-system.svc"
"""The name in every istiod's certificate by default; it has no IP SANs."""

TRIES: Final = 5
RETRIED: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
    }
)
"""The codes Istio's own agent tries again."""

_FIRST_DELAY: Final = 0.1
_JITTER: Final = 0.1
_TIMEOUT: Final = 10.0
_MAX_DETAILS: Final = 300
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_CLUSTER_ID: Final = re.compile(r"[\x20-\x7e]*")

RootSource = Callable[[], Awaitable[bytes]]
"""Returns the PEM bundle of the roots to trust; asked anew for every try. Raises `OSError` when it has none."""

_log = structlog.get_logger(__name__)


class FileRootSource:
    """The root bundle in a file, read for every try, as it is replaced during a root rotation."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __call__(self) -> bytes:
        """Return the bundle now in the file."""
        return await asyncio.to_thread(self._path.read_bytes)


class IstiodClient:
    """Asks one CA for certificates. It keeps no channel: each try reads the roots and dials anew."""

    def __init__(
        self,
        address: str,
        *,
        roots: RootSource,
        token: TokenSource,
        cluster_id: str = "",
        server_name: str | None = ISTIOD_NAME,
        plaintext: bool = False,
        lifetime: timedelta = timedelta(0),
        timeout: float = _TIMEOUT,
        clock: Clock | None = None,
    ) -> None:
        """Raise `AddressError` if `plaintext` would carry tokens off this machine.

        `server_name` is the name the CA's certificate must have, None for the host of `address`.
        `lifetime` is what to ask for, 0 for the CA's default; `timeout` is the seconds one try may take.
        """
        self._address = CaAddress.parse(address)
        if plaintext and not self._address.is_local:
            raise AddressError(f"{address}: without TLS a CA must be at a loopback address or a unix socket")
        if not _CLUSTER_ID.fullmatch(cluster_id):
            raise ValueError("a cluster id has printable ASCII characters only")
        self._roots = roots
        self._token = token
        self._cluster_id = cluster_id
        self._server_name = server_name
        self._plaintext = plaintext
        self._lifetime = lifetime
        self._timeout = timeout
        self._clock: Clock = clock or SystemClock()

    async def fetch(self, identity: SpiffeId) -> WorkloadCertificate:
        """Return a new certificate for `identity` with a new key; raises `IssueError`."""
        key = make_key()
        request = CertificateRequest(
            csr=make_csr(key, identity), validity_seconds=int(self._lifetime.total_seconds())
        ).encode()
        failure = CaUnavailableError("UNAVAILABLE", "no try was made")
        for attempt in range(TRIES):
            if attempt:
                await self._clock.sleep(_FIRST_DELAY * 2 ** (attempt - 1) * (1 + _JITTER * self._clock.jitter()))
            anchors = await self._read_roots()
            token = await self._read_token(identity)
            code, result = await self._call(request, token, anchors)
            if isinstance(result, bytes):
                return accept_answer(
                    _chain_of(result),
                    key=key,
                    identity=identity,
                    anchors=anchors,
                    trust_sent_roots=not self._plaintext,
                    now=self._clock.now(),
                )
            if code not in RETRIED:
                raise CaRefusedError(code.name, result)
            failure = CaUnavailableError(code.name, result)
            _log.debug("certificate request failed", identity=identity.uri, attempt=attempt + 1, code=code.name)
        raise failure

    async def _call(
        self, request: bytes, token: str, anchors: Sequence[x509.Certificate]
    ) -> tuple[grpc.StatusCode, bytes | str]:
        """Return the status and, if OK, the encoded response, else the details without the token."""
        metadata = [("authorization", f"Bearer {token}")]
        if self._cluster_id:
            metadata.append(("clusterid", self._cluster_id))
        async with self._dial(anchors) as channel:
            call = channel.unary_unary(PATH, None, None)(request, metadata=metadata, timeout=self._timeout)
            # Awaiting the call itself would turn a CANCELLED sent by the server into our own cancellation.
            code = await call.code()
            if code is grpc.StatusCode.OK:
                return code, await call
            details = await call.details()
        return code, (details or "").replace(token, "[token]")[:_MAX_DETAILS]

    def _dial(self, anchors: Sequence[x509.Certificate]) -> grpc.aio.Channel:
        options: list[tuple[str, str | int]] = [
            ("grpc.enable_http_proxy", 0),  # a proxy from the environment must not see a token
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection
        ]
        if self._plaintext:
            return grpc.aio.insecure_channel(self._address.target, options=options)
        if self._server_name is not None:
            options += [
                ("grpc.ssl_target_name_override", self._server_name),
                ("grpc.default_authority", self._server_name),
            ]
        credentials = grpc.ssl_channel_credentials(root_certificates=bundle_pem(anchors))
        return grpc.aio.secure_channel(self._address.target, credentials, options=options)

    async def _read_roots(self) -> list[x509.Certificate]:
        try:
            return x509.load_pem_x509_certificates(await self._roots())
        except OSError as error:
            raise CredentialsError("ROOTS_UNREADABLE", str(error)) from None
        except ValueError:
            raise CredentialsError("ROOTS_UNREADABLE", "no bundle of certificates in PEM") from None

    async def _read_token(self, identity: SpiffeId) -> str:
        try:
            token = await self._token(identity)
        except OSError as error:
            raise CredentialsError("TOKEN_UNREADABLE", str(error)) from None
        except UnicodeDecodeError:
            raise CredentialsError("TOKEN_UNREADABLE", "not text") from None
        if not _BEARER.fullmatch(token):  # gRPC would refuse it with an exception that shows it
            raise CredentialsError("TOKEN_UNREADABLE", "empty, or with characters no bearer token has (RFC 6750)")
        return token


def _chain_of(encoded: bytes) -> tuple[str, ...]:
    try:
        return CertificateResponse.decode(encoded).cert_chain
    except DecodeError:
        raise AnswerRefusedError("BAD_ANSWER", "the answer is no IstioCertificateResponse") from None
