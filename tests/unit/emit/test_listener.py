from __future__ import annotations

from meshgw.emit import tables as out
from meshgw.emit.action import NO_CLUSTER
from meshgw.emit.resource import LISTENER
from meshgw.ir.gateway import Binding, ClientValidation, ListenerTls, Protocol, TlsMode, ValidationMode
from meshgw.ir.route import Backend, Rule
from meshgw.protos import DownstreamTlsContext, HttpConnectionManager, Listener, TcpProxy, UdpProxyConfig, UdpRoute
from meshgw.resolve import tables as t
from tests.unit.emit.world import GATEWAY, World, backend, https, listener, match, replace, route, target

PASSTHROUGH = ListenerTls(mode=TlsMode.PASSTHROUGH)


def emitted(world: World, name: str) -> Listener:
    return Listener.FromString(world.resource(LISTENER, name).body)


def proxy(chain: object) -> TcpProxy:
    return TcpProxy.FromString(chain.filters[0].typed_config.value)  # type: ignore[attr-defined]


def names(built: Listener) -> dict[str, list[str]]:
    return {chain.name: list(chain.filter_chain_match.server_names) for chain in built.filter_chains}


def test_a_port_is_bound_where_the_binding_says() -> None:
    world = World(bind="127.0.0.9", offset=10_000)
    world.listen(listener(port=80), listener("high", 8080))
    world.commit()
    for name, port in (("tcp/80", 10_080), ("tcp/8080", 8080)):
        address = emitted(world, name).address.socket_address
        assert (address.address, address.port_value) == ("127.0.0.9", port)


def test_without_a_binding_every_address_is_bound() -> None:
    world = World()
    world.put(t.BINDINGS, GATEWAY, None)
    world.listen(listener())
    world.commit()
    assert emitted(world, "tcp/80").address.socket_address.address == Binding().bind


def test_http_listeners_of_a_port_share_a_chain() -> None:
    world = World()
    world.listen(listener("one", hostname="a.test"), listener("two", hostname="b.test"))
    world.commit()
    built = emitted(world, "tcp/80")
    assert names(built) == {"http/80": []}
    assert list(built.listener_filters) == []
    manager = HttpConnectionManager.FromString(built.filter_chains[0].filters[0].typed_config.value)
    assert manager.rds.route_config_name == "http/80"
    assert manager.use_remote_address.value
    assert manager.normalize_path.value
    assert manager.merge_slashes


def test_routes_never_change_a_listener() -> None:
    world, row = World(), listener()
    world.listen(row)
    world.commit()
    world.serve(row, route(Rule(matches=(match(),), backends=(backend(),))), "a.test")
    assert world.commit().changed(out.LISTENER_RESOURCES) == {}


def test_listeners_that_do_not_serve_reach_no_proxy() -> None:
    world = World()
    for row in (replace(listener(), serving=False), listener("mesh", 15008, Protocol.HBONE)):
        world.put(t.LISTENERS, row.key, row)
    world.commit()
    assert world.resources == {}


def test_https_listeners_have_chains_by_server_name() -> None:
    world = World()
    world.listen(https("any", "", "certificate/default/c"), https("one", "one.test", "certificate/default/c"))
    world.commit()
    built = emitted(world, "tcp/443")
    assert names(built) == {"https/443/default/gw/any": [], "https/443/default/gw/one": ["one.test"]}
    assert {chain.filter_chain_match.transport_protocol for chain in built.filter_chains} == {"tls"}
    assert [item.name for item in built.listener_filters] == ["envoy.filters.listener.tls_inspector"]


def test_tls_is_modern_and_secrets_are_named() -> None:
    world = World()
    world.listen(
        https(
            "one", "", "certificate/default/b", "certificate/default/a", "certificate/default/b", minimum_version="1.3"
        )
    )
    world.commit()
    socket = emitted(world, "tcp/443").filter_chains[0].transport_socket
    common = DownstreamTlsContext.FromString(socket.typed_config.value).common_tls_context
    assert common.tls_params.tls_minimum_protocol_version == common.tls_params.TLSv1_3
    assert list(common.alpn_protocols) == ["h2", "http/1.1"]
    assert [item.name for item in common.tls_certificate_sds_secret_configs] == [
        "certificate/default/b",
        "certificate/default/a",
    ]


def test_clients_without_valid_certificates_pass_only_where_told() -> None:
    world = World()
    bundles = ("bundle/configmap/default/b", "bundle/configmap/default/a")
    for name, port, mode in (
        ("strict", 443, ValidationMode.VALID_ONLY),
        ("lax", 8443, ValidationMode.INSECURE_FALLBACK),
    ):
        client = ClientValidation(bundles=bundles, mode=mode)
        world.listen(https(name, "", "certificate/default/c", port=port, client=client))
    world.commit()
    found = {}
    for port in (443, 8443):
        socket = emitted(world, f"tcp/{port}").filter_chains[0].transport_socket
        context = DownstreamTlsContext.FromString(socket.typed_config.value)
        combined = context.common_tls_context.combined_validation_context
        assert combined.validation_context_sds_secret_config.name == "+".join(sorted(bundles))
        found[port] = (
            context.require_client_certificate.value,
            combined.default_validation_context.trust_chain_verification,
        )
    assert found == {443: (True, 0), 8443: (False, 1)}


def test_a_server_name_belongs_to_the_most_specific_listener() -> None:
    world = World()
    web = https("web", "one.test", "certificate/default/c")
    wild = listener("wild", 443, Protocol.TLS, "*.test", tls=PASSTHROUGH)
    world.listen(web, wild)
    world.forward(wild, (("one.test", "two.test"), (backend(),)), (("two.test", "three.test"), (backend("b"),)))
    world.commit()
    assert sorted(names(emitted(world, "tcp/443")).values()) == [["*.test"], ["one.test"], ["three.test"], ["two.test"]]


def test_what_a_tls_listener_owns_and_no_route_takes_is_closed() -> None:
    world = World()
    any_host = https("any", "", "certificate/default/c")
    owned = listener("owned", 443, Protocol.TLS, "*.owned.test", tls=PASSTHROUGH)
    world.listen(any_host, owned)
    world.commit()
    closed = next(chain for chain in emitted(world, "tcp/443").filter_chains if chain.filter_chain_match.server_names)
    assert list(closed.filter_chain_match.server_names) == ["*.owned.test"]
    assert proxy(closed).cluster == NO_CLUSTER
    assert not closed.HasField("transport_socket")


def test_a_chain_for_some_names_and_for_any_is_two() -> None:
    world, row = World(), listener("tls", 443, Protocol.TLS, tls=PASSTHROUGH)
    world.listen(row)
    world.forward(row, (("a.test", ""), (backend(),)))
    world.commit()
    name = "tls/443/gateway/default/gw/tls/default/route-0"
    assert names(emitted(world, "tcp/443")) == {name: ["a.test"], f"{name}/any": []}


def test_tls_listeners_without_tls_settings_serve_nothing() -> None:
    world = World()
    world.listen(listener("tls", 443, Protocol.TLS), listener("tcp", 443, Protocol.TCP))
    world.commit()
    assert list(names(emitted(world, "tcp/443"))) == ["tcp/443/gateway/default/gw/tcp"]


def test_only_the_first_plain_listener_of_a_port_serves() -> None:
    world = World()
    world.listen(listener("tcp", 80, Protocol.TCP), listener("http", 80))
    world.commit()
    assert list(names(emitted(world, "tcp/80"))) == ["http/80"]


def test_tcp_shares_are_weights() -> None:
    world, row = World(), listener("tcp", 9000, Protocol.TCP)
    world.listen(row)
    world.forward(row, ((), (backend("a", 3), Backend(target=None, weight=1), backend("c", 0))))
    world.commit()
    (chain,) = emitted(world, "tcp/9000").filter_chains
    shares = {item.name: item.weight for item in proxy(chain).weighted_clusters.clusters}
    assert shares == {"service/default/a/80": 3, NO_CLUSTER: 1}


def test_udp_goes_to_the_first_usable_backend() -> None:
    world, row, idle = World(), listener("dns", 53, Protocol.UDP), listener("idle", 54, Protocol.UDP)
    world.listen(row, idle)
    world.forward(row, ((), (Backend(target=None), Backend(target=target("dns", 53, "udp")))))
    world.commit()
    clusters = {}
    for name in ("udp/53", "udp/54"):
        built = emitted(world, name)
        assert built.HasField("udp_listener_config")
        config = UdpProxyConfig.FromString(built.listener_filters[0].typed_config.value)
        clusters[name] = UdpRoute.FromString(config.matcher.on_no_match.action.typed_config.value).cluster
    assert clusters == {"udp/53": "service/default/dns/53/udp", "udp/54": NO_CLUSTER}
