from __future__ import annotations

from meshgw.emit import tables as out
from meshgw.emit.resource import ROUTE_CONFIGURATION
from meshgw.ir.keys import RouteKey
from meshgw.ir.route import HostKind, Rule
from meshgw.protos import RouteConfiguration
from meshgw.resolve import tables as t
from meshgw.resolve.hostnames import route_config
from tests.unit.emit.world import World, backend, listener, match, replace, route, target


def config(world: World, name: str = "http/80") -> RouteConfiguration:
    return RouteConfiguration.FromString(world.resource(ROUTE_CONFIGURATION, name).body)


def two_hosts() -> World:
    world, row = World(), listener()
    world.listen(row)
    for name in ("a", "b"):
        world.serve(row, route(Rule(matches=(match(),), backends=(backend(name),)), name=name), f"{name}.test")
    world.commit()
    return world


def test_hosts_are_joined_and_ports_ignored() -> None:
    built = config(two_hosts())
    hosts = {host.name: host for host in built.virtual_hosts}
    assert {name: len(host.routes) for name, host in hosts.items()} == {"*": 0, "a.test": 1, "b.test": 1}
    assert built.ignore_port_in_host_matching
    assert not built.validate_clusters.value
    assert hosts["a.test"].retry_policy.num_retries.value == 2


def test_a_shard_is_joined_anew_only_when_one_of_its_hosts_changes() -> None:
    world, row = World(), listener()
    world.listen(row)
    for number in range(100):
        world.serve(row, route(name=f"r{number}"), f"{number}.test")
    world.commit()
    key = RouteKey("HTTPRoute", "default", "r7")
    world.put(t.ROUTES, key, route(Rule(matches=(match(),), backends=(backend("other"),)), name="r7"))
    delta = world.commit()
    assert (delta.recomputed["virtual-hosts"], delta.recomputed["shards"], delta.recomputed["route-configs"]) == (
        1,
        1,
        1,
    )
    assert len({host.name for host in config(world).virtual_hosts}) == 101


def test_the_version_changes_exactly_with_the_bytes() -> None:
    one, other = two_hosts(), two_hosts()
    name = (ROUTE_CONFIGURATION, "http/80")
    assert one.resource(*name) == other.resource(*name)
    key = RouteKey("HTTPRoute", "default", "a")
    other.put(t.ROUTES, key, route(Rule(matches=(match(),), backends=(backend("c"),)), name="a"))
    other.commit()
    assert one.resource(*name).version != other.resource(*name).version


def test_a_host_that_is_not_touched_keeps_its_very_bytes() -> None:
    world = two_hosts()
    before = world.graph.rows(out.VIRTUAL_HOSTS)[(route_config(listener()), "b.test")]
    world.put(t.ROUTES, RouteKey("HTTPRoute", "default", "a"), route(name="a"))
    world.commit()
    assert world.graph.rows(out.VIRTUAL_HOSTS)[(route_config(listener()), "b.test")] is before


def test_routes_of_several_objects_share_a_host_by_precedence() -> None:
    world, row = World(), listener()
    for name, rank in (("late", 5), ("early", 1)):
        rule = Rule(matches=(match(rank), match(rank + 1)), backends=(backend(name),))
        world.serve(row, route(rule, name=name), "a.test")
    world.commit()
    (host,) = config(world).virtual_hosts
    assert [item.name.split("/")[2] for item in host.routes] == ["early", "early", "late", "late"]


def test_a_misdirected_host_answers_421_whoever_else_claims_it() -> None:
    world, row = World(), listener()
    world.serve(row, route(Rule(matches=(match(),), backends=(backend(),))), "a.test")
    world.claim(row, "a.test", RouteKey("", "", "other"), HostKind.MISDIRECTED)
    world.commit()
    (host,) = config(world).virtual_hosts
    assert [item.direct_response.status for item in host.routes] == [421]


def test_a_default_host_goes_straight_to_its_target() -> None:
    world, row = World(), listener()
    world.claim(row, "*", RouteKey("", "", "80"), HostKind.DEFAULT, target=target())
    world.commit()
    (host,) = config(world).virtual_hosts
    assert host.routes[0].route.cluster == "service/default/app/80"


def test_no_domain_is_refused_or_repeated() -> None:
    world, row = World(), listener()
    for domain in ("A.test", "a.test", "not a host", "*x.test"):
        world.serve(row, route(Rule(matches=(match(),), backends=(backend(),)), name=domain.lower()), domain)
    world.commit()
    assert [list(host.domains) for host in config(world).virtual_hosts] == [["a.test"]]


def test_a_configuration_without_claims_is_gone() -> None:
    world = two_hosts()
    for key in world.graph.rows(t.HOSTS):
        world.put(t.HOSTS, key, None)
    world.commit()
    assert [key for key in world.resources if key.type_url == ROUTE_CONFIGURATION] == []


def test_an_edit_without_effect_changes_nothing() -> None:
    world = two_hosts()
    key = RouteKey("HTTPRoute", "default", "a")
    world.put(t.ROUTES, key, replace(world.graph.rows(t.ROUTES)[key], refs_message="seen"))
    delta = world.commit()
    assert delta.recomputed["fragments"] == 1
    assert delta.changed(out.RESOURCES) == {}
