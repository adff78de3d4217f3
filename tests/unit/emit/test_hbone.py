from __future__ import annotations

from meshgw.emit import tables as out
from meshgw.emit.hbone import originate_cluster, originate_listener, trusted_identities
from meshgw.ir.gateway import Settings
from meshgw.names import HBONE_PORT
from meshgw.protos import NetworkSetFilterState, TcpProxy, TlsParameters, UpstreamHttp, UpstreamTlsContext
from tests.unit.emit.world import World, target


def test_the_endpoints_identity_overrides_the_wider_check() -> None:
    built = originate_listener()
    state, proxy = built.filter_chains[0].filters
    value, _fallback = NetworkSetFilterState.FromString(state.typed_config.value).on_new_connection
    assert value.object_key == "envoy.network.upstream_subject_alt_names"
    assert not value.skip_if_empty
    assert value.format_string.text_format_source.inline_string == "%DYNAMIC_METADATA(meshgw:san)%"
    tunnel = TcpProxy.FromString(proxy.typed_config.value)
    assert (tunnel.cluster, tunnel.tunneling_config.hostname) == ("connect_originate", "%DOWNSTREAM_LOCAL_ADDRESS%")
    assert built.HasField("internal_listener")
    assert not built.use_original_dst.value


def test_tunnels_are_mutual_tls_1_3_to_port_15008() -> None:
    built = originate_cluster(Settings())
    assert built.original_dst_lb_config.upstream_port_override.value == HBONE_PORT
    common = UpstreamTlsContext.FromString(built.transport_socket.typed_config.value).common_tls_context
    assert common.tls_params.tls_minimum_protocol_version == TlsParameters.TLSv1_3
    assert [item.name for item in common.tls_certificate_sds_secret_configs] == ["default"]
    assert common.combined_validation_context.validation_context_sds_secret_config.name == "ROOTCA"
    (options,) = built.typed_extension_protocol_options.values()
    assert UpstreamHttp.FromString(options.value).explicit_http_config.http2_protocol_options.allow_connect


def test_peers_are_of_our_trust_domains() -> None:
    settings = Settings(trust_domain="one.test", trust_domain_aliases=("two.test", "one.test"))
    names = trusted_identities(settings).match_typed_subject_alt_names
    assert [item.matcher.prefix for item in names] == ["spiffe://one.test/", "spiffe://two.test/"]


def test_only_gateways_that_tunnel_have_the_listener() -> None:
    world = World()
    world.reach(target("plain"), ("10.0.0.1", 80))
    world.commit()
    assert world.graph.rows(out.ORIGINATE_RESOURCES) == {}
    world.reach(target("mesh"), hbone=True)
    world.commit()
    assert len(world.graph.rows(out.ORIGINATE_RESOURCES)) == 2
