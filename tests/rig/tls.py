"""TLS settings of the rig's servers and clients, as SSLContexts."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass

from tests.rig.certs import Leaf


@dataclass(frozen=True)
class ServerTls:
    """What a backend presents; with `client_ca` (PEM) it verifies client certificates, and demands one if `require`."""

    identity: Leaf
    client_ca: bytes | None = None
    require: bool = True
    alpn: tuple[str, ...] = ("h2", "http/1.1")
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    maximum: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED

    def context(self) -> ssl.SSLContext:
        """Return a fresh server context."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.maximum_version = self.minimum, self.maximum
        _load(context, self.identity)
        if self.alpn:
            context.set_alpn_protocols(list(self.alpn))
        if self.client_ca is not None:
            context.load_verify_locations(cadata=self.client_ca.decode())
            context.verify_mode = ssl.CERT_REQUIRED if self.require else ssl.CERT_OPTIONAL
        return context


@dataclass(frozen=True)
class ClientTls:
    """What a client sends and trusts; `ca=None` accepts any server, `verify_name=False` skips only the name check."""

    ca: bytes | None = None
    identity: Leaf | None = None
    sni: str | None = None
    alpn: tuple[str, ...] = ()
    verify_name: bool = True
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    maximum: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED

    def context(self) -> ssl.SSLContext:
        """Return a fresh client context."""
        context = _FixedAlpn(ssl.PROTOCOL_TLS_CLIENT) if self.alpn else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version, context.maximum_version = self.minimum, self.maximum
        context.check_hostname = self.ca is not None and self.verify_name
        if self.ca is None:
            context.verify_mode = ssl.CERT_NONE
        else:
            context.load_verify_locations(cadata=self.ca.decode())
        if self.identity is not None:
            _load(context, self.identity)
        if isinstance(context, _FixedAlpn):
            context.fix(list(self.alpn))
        return context


class _FixedAlpn(ssl.SSLContext):
    """A context whose ALPN list a library that is handed it cannot replace."""

    def fix(self, protocols: list[str]) -> None:
        """Set the list."""
        super().set_alpn_protocols(protocols)

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Keep the list as it is."""


@dataclass(frozen=True)
class TlsInfo:
    """What a finished handshake agreed on; `peer_*` need a verified peer certificate."""

    version: str
    alpn: str | None
    sni: str | None = None
    peer_dns: tuple[str, ...] = ()
    peer_uris: tuple[str, ...] = ()
    peer_serial: int | None = None


def describe(tls: ssl.SSLObject, sni: str | None = None) -> TlsInfo:
    """Return the facts of a finished handshake."""
    peer = tls.getpeercert() or {}
    names = [pair for pair in peer.get("subjectAltName", ()) if isinstance(pair, tuple)]
    serial = peer.get("serialNumber")
    return TlsInfo(
        version=tls.version() or "",
        alpn=tls.selected_alpn_protocol(),
        sni=sni,
        peer_dns=tuple(str(value) for kind, value in names if kind == "DNS"),
        peer_uris=tuple(str(value) for kind, value in names if kind == "URI"),
        peer_serial=int(serial, 16) if isinstance(serial, str) else None,
    )


def _load(context: ssl.SSLContext, identity: Leaf) -> None:
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(identity.chain + identity.key)
        file.flush()
        context.load_cert_chain(file.name)
