from __future__ import annotations

from meshgw.api.meta import Key
from meshgw.emit import tables as out
from meshgw.emit.resource import CLUSTER, LISTENER, SECRET
from meshgw.ir.backend import Bundle, Certificate, UpstreamTls, WorkloadCertificate, bundle_name, certificate_name
from meshgw.ir.gateway import ClientValidation, Role, Settings
from meshgw.protos import Secret
from meshgw.resolve import tables as t
from tests.unit.emit.world import GATEWAY, World, https, replace, target

CERTIFICATE = certificate_name("default", "c")


def names(world: World) -> set[str]:
    return {key.name for key in world.resources if key.type_url == SECRET}


def secret(world: World, name: str) -> Secret:
    return Secret.FromString(world.resource(SECRET, name).body)


def test_a_gateway_gets_the_secrets_it_names_and_no_others() -> None:
    world = World()
    for name in ("c", "unused"):
        row = Certificate(name=certificate_name("default", name), chain=b"chain", key=b"key")
        world.put(t.CERTIFICATES, Key("default", name), row)
    world.listen(https("web", "", CERTIFICATE))
    world.commit()
    assert names(world) == {CERTIFICATE}
    built = secret(world, CERTIFICATE).tls_certificate
    assert (built.certificate_chain.inline_bytes, built.private_key.inline_bytes) == (b"chain", b"key")


def test_a_secret_named_twice_is_one_and_goes_with_its_last_use() -> None:
    world = World()
    world.put(t.CERTIFICATES, Key("default", "c"), Certificate(name=CERTIFICATE, chain=b"chain", key=b"key"))
    rows = [https("one", "one.test", CERTIFICATE), https("two", "two.test", CERTIFICATE)]
    world.listen(*rows)
    world.commit()
    assert len(world.graph.rows(out.SECRET_USES)) == 2
    for row, expected in ((rows[0], {CERTIFICATE}), (rows[1], set())):
        world.put(t.LISTENERS, row.key, replace(row, serving=False))
        world.commit()
        assert names(world) == expected


def test_rotation_changes_the_secret_alone() -> None:
    world = World()
    world.put(t.CERTIFICATES, Key("default", "c"), Certificate(name=CERTIFICATE, chain=b"old", key=b"key"))
    world.listen(https("web", "", CERTIFICATE))
    world.commit()
    world.put(t.CERTIFICATES, Key("default", "c"), Certificate(name=CERTIFICATE, chain=b"new", key=b"key"))
    assert {key.type_url for key in world.commit().changed(out.RESOURCES)} == {SECRET}


def test_bad_certificates_and_bundles_give_no_secret() -> None:
    world = World()
    good, bad = (bundle_name("ConfigMap", "default", name) for name in ("good", "bad"))
    world.put(t.CERTIFICATES, Key("default", "c"), Certificate(name=CERTIFICATE, error="malformed"))
    world.put(t.BUNDLES, ("ConfigMap", Key("default", "good")), Bundle(name=good, roots=b"roots"))
    world.put(t.BUNDLES, ("ConfigMap", Key("default", "bad")), Bundle(name=bad, error="empty"))
    world.listen(
        https("web", "", CERTIFICATE, "certificate/default/gone", client=ClientValidation(bundles=(good, bad)))
    )
    world.commit()
    assert names(world) == set()


def test_bundles_are_united_in_one_secret() -> None:
    world = World()
    one, two = bundle_name("ConfigMap", "default", "one"), bundle_name("Secret", "other", "two")
    world.put(t.BUNDLES, ("ConfigMap", Key("default", "one")), Bundle(name=one, roots=b"first"))
    world.put(t.BUNDLES, ("Secret", Key("other", "two")), Bundle(name=two, roots=b"second\n"))
    mine = UpstreamTls(sni="app.test", bundles=(two, one), client_certificate=CERTIFICATE)
    world.put(t.CERTIFICATES, Key("default", "c"), Certificate(name=CERTIFICATE, chain=b"chain", key=b"key"))
    world.reach(target(), tls=mine)
    world.commit()
    assert names(world) == {f"{one}+{two}", CERTIFICATE}
    assert secret(world, f"{one}+{two}").validation_context.trusted_ca.inline_bytes == b"first\nsecond\n"


def test_the_systems_roots_are_a_file_of_the_proxys_system() -> None:
    world = World()
    world.reach(target(), tls=UpstreamTls(sni="app.test", system_roots=True))
    world.commit()
    assert secret(world, "system-roots").validation_context.trusted_ca.filename.startswith("/etc/ssl/")


def test_clusters_that_are_refused_name_no_secrets() -> None:
    world = World()
    world.reach(target("a"), tls=UpstreamTls(sni="app.test", system_roots=True), refused="bad")
    world.reach(target("b"), tls=UpstreamTls(sni="app.test", client_certificate=CERTIFICATE))
    world.commit()
    assert world.graph.rows(out.SECRET_USES) == {}


def test_who_tunnels_gets_its_mesh_identity_and_the_tunnel() -> None:
    world = World()
    world.put(
        t.WORKLOAD_CERTIFICATES, Key("default", "gw"), WorkloadCertificate(chain=b"chain", key=b"key", roots=b"roots")
    )
    world.reach(target(), hbone=True)
    world.commit()
    assert names(world) == {"default", "ROOTCA"}
    assert secret(world, "default").tls_certificate.private_key.inline_bytes == b"key"
    assert secret(world, "ROOTCA").validation_context.trusted_ca.inline_bytes == b"roots"
    tunnel = {(key.type_url, key.name) for key in world.graph.rows(out.ORIGINATE_RESOURCES)}
    assert tunnel == {(LISTENER, "connect_originate"), (CLUSTER, "connect_originate")}


def test_a_waypoint_has_a_mesh_identity_even_without_backends() -> None:
    world = World(role=Role.WAYPOINT)
    world.put(t.SETTINGS, t.SINGLE, Settings(mesh=True))
    world.commit()
    assert {key[1] for key in world.graph.rows(out.SECRET_USES)} == {"default", "ROOTCA"}
    assert names(world) == set()


def test_a_gateway_that_is_gone_has_no_identity() -> None:
    world = World()
    world.put(t.OUR_GATEWAYS, GATEWAY, None)
    world.reach(target(), hbone=True)
    world.commit()
    assert names(world) == set()
