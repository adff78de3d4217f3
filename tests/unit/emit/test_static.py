from __future__ import annotations

from meshgw.api.meta import Key
from meshgw.emit.dump import REDACTED, dump, render_resources
from meshgw.emit.resource import SECRET
from meshgw.emit.static import emit_static, render_static
from meshgw.ir.backend import Certificate, certificate_name
from meshgw.ir.route import Rule
from meshgw.resolve import tables as t
from tests.unit.emit.world import World, backend, https, match, route, target

CERTIFICATE = certificate_name("default", "c")


def secure_world() -> World:
    world, row = World(), https("web", "", CERTIFICATE)
    world.put(t.CERTIFICATES, Key("default", "c"), Certificate(name=CERTIFICATE, chain=b"chain", key=b"private"))
    world.listen(row)
    world.serve(row, route(Rule(matches=(match(),), backends=(backend(),))))
    world.reach(target(), ("10.0.0.1", 80))
    world.commit()
    return world


def test_everything_is_inline() -> None:
    document = secure_world().static()
    text = str(document)
    for dynamic in ("'ads'", "'rds'", "sds_config'", "eds_cluster_config"):
        assert dynamic not in text
    static = document["static_resources"]
    manager = static["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["cluster"] == "service/default/app/80"
    assert static["clusters"][0]["type"] == "STATIC"
    assert static["clusters"][0]["load_assignment"]["endpoints"]
    assert [secret["name"] for secret in static["secrets"]] == [CERTIFICATE]


def test_order_does_not_show() -> None:
    resources = list(secure_world().resources.values())
    assert emit_static(resources) == emit_static(reversed(resources))


def test_what_waits_for_a_secret_is_left_out() -> None:
    resources = [item for key, item in secure_world().resources.items() if key.type_url != SECRET]
    static = emit_static(resources)["static_resources"]
    assert set(static) == {"clusters"}


def test_missing_parts_are_empty() -> None:
    resources = [item for key, item in secure_world().resources.items() if key.name != "tcp/443"]
    lonely = [item for item in resources if item.type_url.endswith("Cluster")]
    (cluster,) = emit_static(lonely)["static_resources"]["clusters"]
    assert cluster["load_assignment"] == {"cluster_name": "service/default/app/80"}


def test_every_gateway_is_rendered_under_its_name() -> None:
    world = secure_world()
    assert list(render_static(world.graph)) == ["default/gw"]
    assert set(render_resources(world.graph)["default/gw"]) == {"LDS", "RDS", "CDS", "EDS", "SDS"}


def test_only_the_static_configuration_shows_keys() -> None:
    world = secure_world()
    shown = dump(world.resource(SECRET, CERTIFICATE))
    assert shown["tls_certificate"]["private_key"] == {"inline_string": REDACTED}
    assert "private_key" in str(world.static())
    secret = "cHJpdmF0ZQ=="
    assert secret not in str(render_resources(world.graph))
    assert secret in str(world.static())
