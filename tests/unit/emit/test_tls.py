from __future__ import annotations

import pytest

from meshgw.emit.tls import bundle_secret, downstream_tls, upstream_roots
from meshgw.ir.backend import UpstreamTls
from meshgw.ir.gateway import ListenerTls
from meshgw.protos import DownstreamTlsContext, TlsParameters


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        (UpstreamTls(sni="a"), ""),
        (UpstreamTls(sni="a", system_roots=True), "system-roots"),
        (UpstreamTls(sni="a", bundles=("b", "a", "b")), "a+b"),
    ],
)
def test_what_verifies_a_backend_is_one_secret(tls: UpstreamTls, expected: str) -> None:
    assert upstream_roots(tls) == expected


def test_the_order_of_bundles_does_not_show() -> None:
    assert bundle_secret(["b", "a"]) == bundle_secret(["a", "b"]) == "a+b"


@pytest.mark.parametrize("version", ["1.2", "1.0", "nonsense"])
def test_nothing_older_than_tls_1_2_is_spoken(version: str) -> None:
    socket = downstream_tls(ListenerTls(certificates=("c",), minimum_version=version))
    params = DownstreamTlsContext.FromString(socket.typed_config.value).common_tls_context.tls_params
    assert params.tls_minimum_protocol_version == TlsParameters.TLSv1_2
    assert params.tls_maximum_protocol_version == TlsParameters.TLSv1_3
