"""Embedded mesh CA for standalone use: istiod's certificate service on loopback, refusing what istiod refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Self

import grpc
import grpc.aio
import structlog

from meshgw.identity.address import AddressError, CaAddress
from meshgw.identity.authority import MeshAuthority
from meshgw.identity.istiod import ISTIOD_NAME
from meshgw.identity.protocol import (
    IMPERSONATED_IDENTITY,
    METHOD,
    SERVICE,
    CertificateRequest,
    CertificateResponse,
)
from meshgw.identity.signer import SigningError
from meshgw.identity.spiffe import SpiffeId
from meshgw.identity.tokens import ServiceAccountTokens, TokenError

DEFAULT_CLUSTER_ID: Final = "Kubernetes"

_SCHEME: Final = "Bearer "
_CODES: Final = {
    "CSR_ERROR": grpc.StatusCode.INVALID_ARGUMENT,
    "TTL_ERROR": grpc.StatusCode.INVALID_ARGUMENT,
    "CA_NOT_READY": grpc.StatusCode.INTERNAL,
}
_Context = grpc.aio.ServicerContext[bytes, bytes]

_log = structlog.get_logger(__name__)


class _UnauthenticatedError(Exception):
    """A caller who is nobody here; the message says why."""


class EmbeddedCa:
    """Serves one `MeshAuthority` at a unix socket or loopback address, while entered as a context."""

    def __init__(
        self,
        authority: MeshAuthority,
        *,
        address: str = "127.0.0.1:0",
        tls: bool = False,
        cluster_id: str = DEFAULT_CLUSTER_ID,
        cluster_aliases: Sequence[str] = (),
    ) -> None:
        """Raise `AddressError` if `address` can be reached from another machine; port 0 takes a free one."""
        self._address = CaAddress.parse(address)
        if not self._address.is_local:
            raise AddressError(f"{address}: the embedded CA listens at a loopback address or a unix socket only")
        self._authority = authority
        self._tls = tls
        self._clusters = frozenset({"", cluster_id, *cluster_aliases})
        self._tokens = ServiceAccountTokens(authority.trust_domain)
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def authority(self) -> MeshAuthority:
        """The authority that signs."""
        return self._authority

    @property
    def tokens(self) -> ServiceAccountTokens:
        """The tokens this CA believes; usable as the `TokenSource` of a client in this process."""
        return self._tokens

    @property
    def address(self) -> str:
        """Where this CA listens, in the form `IstiodClient` takes; the port is known once it is entered."""
        if self._address.socket is not None:
            return f"unix:{self._address.socket}"
        host = self._address.target.partition(":")[2].rpartition(":")[0]
        return f"{host}:{self._port}"

    async def roots(self) -> bytes:
        """Return the root bundle in PEM, which makes this the `RootSource` of a client in this process."""
        return self._authority.roots_pem

    def mint_token(self, namespace: str, service_account: str, *, lifetime: timedelta | None = None) -> str:
        """Return a token this CA believes, for 10 minutes unless `lifetime` says otherwise; raises `SpiffeError`."""
        if lifetime is None:
            return self._tokens.mint(namespace, service_account)
        return self._tokens.mint(namespace, service_account, lifetime=lifetime)

    async def __aenter__(self) -> Self:
        """Start listening; raises `OSError` if the address is taken."""
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handler = grpc.unary_unary_rpc_method_handler(
            self._create_certificate,
            request_deserializer=CertificateRequest.decode,
            response_serializer=CertificateResponse.encode,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        target = self._address.target.partition(":")[2] if self._address.socket is None else self._address.target
        try:
            self._port = (
                server.add_secure_port(target, self._credentials()) if self._tls else server.add_insecure_port(target)
            )
        except RuntimeError as error:
            raise OSError(f"the embedded CA cannot listen at {target}: {error}") from None
        await server.start()
        if self._address.socket is not None:
            await asyncio.to_thread(self._address.socket.chmod, 0o600)
        self._server = server
        _log.info("mesh CA listening", address=self.address, trust_domain=self._authority.trust_domain)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and remove the socket file."""
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None
        if self._address.socket is not None:
            await asyncio.to_thread(self._address.socket.unlink, missing_ok=True)

    def _credentials(self) -> grpc.ServerCredentials:
        # A new certificate per handshake: none ever ends, and each comes from the root that signs now.
        return grpc.dynamic_ssl_server_credentials(self._server_certificate(), self._server_certificate)

    def _server_certificate(self) -> grpc.ServerCertificateConfiguration:
        key, chain = self._authority.issue_server((ISTIOD_NAME, "localhost"))
        return grpc.ssl_server_certificate_configuration([(key.reveal(), chain)])

    async def _create_certificate(self, request: CertificateRequest, context: _Context) -> CertificateResponse:
        try:
            identity = self._authenticate(request, dict(context.invocation_metadata() or ()))
            chain = self._authority.issue(request.csr, identity, request.validity_seconds)
        except _UnauthenticatedError as error:
            _log.warning("certificate refused", reason=str(error))
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        except SigningError as error:
            _log.warning("certificate refused", reason=str(error))
            await context.abort(_CODES[error.reason], str(error))
        _log.info("certificate issued", identity=identity.uri)
        return CertificateResponse(cert_chain=chain)

    def _authenticate(self, request: CertificateRequest, metadata: dict[str, str | bytes]) -> SpiffeId:
        credential = metadata.get("authorization", "")
        if not isinstance(credential, str) or not credential.startswith(_SCHEME):
            raise _UnauthenticatedError("no bearer token")
        if metadata.get("clusterid", "") not in self._clusters:
            raise _UnauthenticatedError("a cluster this CA does not serve")
        try:
            identity = self._tokens.verify(credential.removeprefix(_SCHEME))
        except TokenError as error:
            raise _UnauthenticatedError(f"the token proves no service account: {error}") from None
        if request.metadata.get(IMPERSONATED_IDENTITY):
            raise _UnauthenticatedError("this CA lets nobody act for another identity")
        return identity
