"""Where the xDS server listens, what guards it there, and what one connection may hold."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from typing import Final

import grpc
import grpc.aio

from meshgw.xds.proxy import Limits

AGE_JITTER: Final = 0.2
"""A stream's age differs from the limit by up to this share, so that streams that began together end apart."""
_DRAIN_AT: Final = 0.72
_DRAIN_JITTER: Final = 0.1
"""Where in a stream's age its connection takes no more streams; the jitter is gRPC's own."""


def tls_credentials(current: Callable[[], tuple[bytes, bytes]]) -> grpc.ServerCredentials:
    """Credentials of a server whose private key and certificate chain, both PEM, are asked for at each handshake.

    `current` is called by threads of gRPC. Clients need TLS 1.2 or newer, and no certificate.
    """

    def fetch() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([current()])

    return grpc.dynamic_ssl_server_credentials(fetch(), fetch)


def make_server(limits: Limits, *, guarded: bool) -> grpc.aio.Server:
    """A gRPC server with these limits; the connections of a guarded one, which others can reach, end one day."""
    options = [
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", limits.streams_per_connection),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.server_handshake_timeout_ms", _ms(limits.patience)),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ]
    if guarded:
        # First the connection takes no more streams, then the stream ends: the next one may find another replica.
        longest = (1 + AGE_JITTER) * limits.age + 2 * limits.grace
        options += [
            ("grpc.max_connection_idle_ms", _ms(limits.patience)),
            ("grpc.max_connection_age_ms", _ms(_DRAIN_AT * limits.age)),
            ("grpc.max_connection_age_grace_ms", _ms(longest - (1 - _DRAIN_JITTER) * _DRAIN_AT * limits.age)),
        ]
    return grpc.aio.server(options=options)


def bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None) -> str:
    """Listen, and return the address with the port that was given; a unix socket is for its owner alone.

    Raises OSError when the address is taken.
    """
    try:
        port = server.add_secure_port(listen, credentials) if credentials else server.add_insecure_port(listen)
    except RuntimeError as error:
        raise OSError(f"xDS cannot listen on {listen}: {error}") from error
    if listen.startswith("unix:"):
        os.chmod(listen.removeprefix("unix:"), 0o600)  # noqa: PTH101 - one call at start-up, before serving
        return listen
    return f"{listen.rpartition(':')[0]}:{port}"


def check_loopback(listen: str) -> None:
    """Raise ValueError unless only this machine can reach the address."""
    if listen.startswith("unix:"):
        return
    host = listen.rpartition(":")[0].strip("[]")
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError(
            f"without credentials and authentication, xDS listens on loopback or a unix socket, not on {listen!r}"
        )


def _ms(seconds: float) -> int:
    return int(min(seconds * 1000, 2**31 - 1))
