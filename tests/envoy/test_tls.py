"""TLS at both sides of a gateway: certificates by name, misdirected requests, client certificates, backends."""

from __future__ import annotations

import ssl

import httpcore
import pytest

from tests.envoy.gateway import (
    GROUP,
    HTTPS,
    Document,
    backend_tls_policy,
    gateway,
    grant,
    https_listener,
    listener,
    namespace,
    resource,
    route,
    serve,
    service,
    site,
    to,
)
from tests.rig.backends import Backends
from tests.rig.certs import CertificateAuthority, authority
from tests.rig.clients import HttpClient, grpc_call, tls_handshake, websocket
from tests.rig.tls import ClientTls, ServerTls

REFUSED = (ssl.SSLError, ConnectionError, httpcore.NetworkError, httpcore.RemoteProtocolError)


def section(name: str) -> list[Document]:
    return [{"name": "gw", "sectionName": name}]


async def test_a_listener_shows_the_certificate_for_the_name_asked(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    listeners = [
        https_listener("one", certificates=["one"], hostname="one.test"),
        https_listener("wild", certificates=["wild"], hostname="*.wild.test"),
    ]
    secrets = [ca.issue("one.test").secret("one"), ca.issue("*.wild.test").secret("wild")]
    async with site(loopback, backends, gateway(*listeners), route([to("a")]), secrets, names="a") as served:
        for host in ("one.test", "x.wild.test"):
            assert (await served.fresh(host=host, tls=ClientTls(ca=ca.root))).pod == "a"


async def test_one_listener_chooses_among_its_certificates_by_name(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    both = https_listener(certificates=["one", "two"])
    secrets = [ca.issue("one.test").secret("one"), ca.issue("two.test", key="rsa").secret("two")]
    async with site(loopback, backends, gateway(both), route([to("a")]), secrets, names="a") as served:
        for host in ("one.test", "two.test"):
            assert (await served.fresh(host=host, tls=ClientTls(ca=ca.root))).pod == "a"


async def test_http2_is_offered_over_tls(loopback: str, backends: Backends, ca: CertificateAuthority) -> None:
    secret = ca.issue("site.test").secret("cert")
    async with site(loopback, backends, gateway(https_listener()), route([to("a")]), secret, names="a") as served:
        tls = ClientTls(ca=ca.root, sni="site.test", alpn=("h2", "http/1.1"))
        facts, _certificate = await tls_handshake(served.target(HTTPS), tls)
        assert (facts.alpn, facts.version) == ("h2", "TLSv1.3")
        answer = await served.fresh(host="site.test", tls=ClientTls(ca=ca.root), http="2")
        assert (answer.version, answer.pod) == ("HTTP/2", "a")


async def test_tls_1_2_still_serves(loopback: str, backends: Backends, ca: CertificateAuthority) -> None:
    secret = ca.issue("site.test").secret("cert")
    async with site(loopback, backends, gateway(https_listener()), route([to("a")]), secret, names="a") as served:
        old = ClientTls(sni="site.test", maximum=ssl.TLSVersion.TLSv1_2)
        assert (await tls_handshake(served.target(HTTPS), old))[0].version == "TLSv1.2"


async def test_a_name_that_no_listener_has_is_closed(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    only = https_listener(hostname="known.test")
    secret = ca.issue("known.test").secret("cert")
    async with site(loopback, backends, gateway(only), route([to("a")]), secret, names="a") as served:
        with pytest.raises(REFUSED):
            await tls_handshake(served.target(HTTPS), ClientTls(sni="unknown.test"))
        assert (await served.fresh(host="known.test", tls=ClientTls(ca=ca.root))).pod == "a"


async def test_plain_text_on_a_tls_port_is_closed(loopback: str, backends: Backends, ca: CertificateAuthority) -> None:
    secret = ca.issue("site.test").secret("cert")
    async with site(loopback, backends, gateway(https_listener()), route([to("a")]), secret, names="a") as served:
        with pytest.raises(REFUSED):
            await served.get(port=HTTPS)


async def test_a_request_for_another_listeners_host_is_misdirected(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    listeners = [
        https_listener("one", hostname="one.site.test"),
        https_listener("two", hostname="two.site.test"),
        https_listener("wild", hostname="*.site.test"),
    ]
    routes = [route([to("a")], name=name, parents=section(name)) for name in ("one", "two", "wild")]
    secret = ca.issue("one.site.test", "two.site.test", "*.site.test").secret("cert")
    async with site(loopback, backends, gateway(*listeners), *routes, secret, names="a") as served:
        cases = {
            ("one.site.test", "one.site.test"): 200,
            ("one.site.test", "two.site.test"): 421,
            ("two.site.test", "one.site.test"): 421,
            ("one.site.test", "x.site.test"): 421,
            ("x.site.test", "one.site.test"): 421,
            ("x.site.test", "y.site.test"): 200,
            ("x.site.test", "nobody.example"): 404,
            ("one.site.test", "nobody.example"): 404,
        }
        seen = {}
        for sni, host in cases:
            async with HttpClient(served.target(HTTPS), tls=ClientTls(ca=ca.root, sni=sni), http="2") as client:
                seen[sni, host] = (await client.get(host=host)).status
        assert seen == cases


async def test_a_listener_without_its_certificate_does_not_serve_and_others_do(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    listeners = [
        https_listener("good", hostname="good.test", certificates=["good"]),
        https_listener("missing", hostname="missing.test", certificates=["missing"]),
        https_listener("broken", hostname="broken.test", certificates=["broken"]),
    ]
    broken = ca.issue("broken.test").secret("broken")
    broken["data"]["tls.key"] = ca.issue("other.test").secret("x")["data"]["tls.key"]
    secrets = [ca.issue("good.test").secret("good"), broken]
    async with site(loopback, backends, gateway(*listeners), route([to("a")]), secrets, names="a") as served:
        assert (await served.fresh(host="good.test", tls=ClientTls(ca=ca.root))).pod == "a"
        for host in ("missing.test", "broken.test"):
            with pytest.raises(REFUSED):
                await tls_handshake(served.target(HTTPS), ClientTls(sni=host))
        assert [finding.code for finding in served.findings("MG3")] == ["MG3001", "MG3001"]


async def test_a_certificate_of_another_namespace_needs_a_grant(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    far = https_listener()
    far["tls"]["certificateRefs"][0]["namespace"] = "vault"
    objects = [namespace("vault"), ca.issue("site.test").secret("cert", "vault"), listener_and(far), route([to("a")])]
    async with site(loopback, backends, *objects, names="a") as served:
        with pytest.raises((*REFUSED, httpcore.ConnectError)):
            await served.fresh(host="site.test", tls=ClientTls(ca=ca.root))
    opened = grant("default", "vault", source="Gateway", target="Secret")
    async with site(loopback, backends, *objects, opened, names="a") as served:
        assert (await served.fresh(host="site.test", tls=ClientTls(ca=ca.root))).pod == "a"


def listener_and(*others: Document) -> Document:
    """A Gateway with a plain listener too, so that Envoy has something to serve."""
    return gateway(listener(), *others)


def client_validation(name: str = "clients", mode: str = "AllowValidOnly") -> Document:
    ref = {"group": "", "kind": "ConfigMap", "name": name}
    return {"validation": {"caCertificateRefs": [ref], "mode": mode}}


async def test_clients_must_show_a_certificate_of_the_right_authority(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    clients = authority("clients")
    strict = gateway(https_listener(), tls={"frontend": {"default": client_validation()}})
    objects = [ca.issue("site.test").secret("cert"), clients.config_map("clients"), route([to("a")])]
    async with site(loopback, backends, strict, *objects, names="a") as served:
        good = ClientTls(ca=ca.root, identity=clients.issue("me"))
        assert (await served.fresh(host="site.test", tls=good)).pod == "a"
        for bad in (None, ca.issue("me"), clients.expired("me")):
            with pytest.raises(REFUSED):
                await served.fresh(host="site.test", tls=ClientTls(ca=ca.root, identity=bad))


async def test_the_insecure_fallback_asks_for_certificates_and_lets_all_in(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    validation = client_validation(mode="AllowInsecureFallback")
    lax = gateway(https_listener(), tls={"frontend": {"default": validation}})
    objects = [ca.issue("site.test").secret("cert"), authority("clients").config_map("clients"), route([to("a")])]
    async with site(loopback, backends, lax, *objects, names="a") as served:
        for identity in (None, ca.issue("me"), authority("clients").issue("me")):
            tls = ClientTls(ca=ca.root, identity=identity)
            assert (await served.fresh(host="site.test", tls=tls)).pod == "a"


async def test_client_validation_may_differ_by_port(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    frontend = {"default": client_validation(), "perPort": [{"port": 8443, "tls": {}}]}
    both = gateway(https_listener(), https_listener("open", port=8443), tls={"frontend": frontend})
    objects = [ca.issue("site.test").secret("cert"), authority("clients").config_map("clients"), route([to("a")])]
    async with site(loopback, backends, both, *objects, names="a") as served:
        tls = ClientTls(ca=ca.root)
        assert (await served.fresh(host="site.test", port=8443, tls=tls)).pod == "a"
        with pytest.raises(REFUSED):
            await served.fresh(host="site.test", tls=tls)


async def test_client_validation_without_its_authority_lets_nobody_in(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    validated = listener_and(https_listener())
    validated["spec"]["tls"] = {"frontend": {"default": client_validation("missing")}}
    objects = [ca.issue("site.test").secret("cert"), route([to("a")])]
    async with site(loopback, backends, validated, *objects, names="a") as served:
        assert await served.pods(1) == ["a"]
        with pytest.raises((*REFUSED, httpcore.ConnectError)):
            await served.fresh(host="site.test", tls=ClientTls(ca=ca.root))


async def test_a_backend_is_reached_by_tls_with_the_policys_name(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    pod = await backends.echo("pod", tls=ServerTls(ca.issue("backend.test")))
    objects = [service("a", pod.address), backend_tls_policy("a"), ca.config_map("backend-ca")]
    async with serve(loopback, gateway(), route([to("a")]), *objects) as served:
        echo = (await served.get(host="client.test")).echo
    assert echo.tls is not None
    assert (echo.tls.sni, echo.host) == ("backend.test", "client.test")


@pytest.mark.parametrize("wrong", ["name", "authority", "plain", "expired"])
async def test_a_backend_that_proves_nothing_is_an_error_and_never_gets_plain_text(
    loopback: str, backends: Backends, ca: CertificateAuthority, wrong: str
) -> None:
    identity = {
        "name": ca.issue("other.test"),
        "authority": authority("elsewhere").issue("backend.test"),
        "expired": ca.expired("backend.test"),
    }.get(wrong)
    pod = await backends.echo("pod", tls=ServerTls(identity) if identity else None)
    objects = [service("a", pod.address), backend_tls_policy("a"), ca.config_map("backend-ca")]
    async with serve(loopback, gateway(), route([to("a")]), *objects) as served:
        assert (await served.get()).status in {500, 502, 503}
    assert pod.count() == 0


async def test_a_policy_without_its_bundle_closes_its_backend(loopback: str, backends: Backends) -> None:
    pod = await backends.echo("a")
    async with serve(
        loopback, gateway(), route([to("a")]), service("a", pod.address), backend_tls_policy("a")
    ) as served:
        assert (await served.get()).status in {500, 502, 503}
        assert {finding.code for finding in served.findings("MG3")} == {"MG3002", "MG3004"}
    assert pod.connections == 0


@pytest.mark.parametrize(
    ("sans", "status"),
    [
        ([{"type": "Hostname", "hostname": "inner.test"}], 200),
        ([{"type": "URI", "uri": "spiffe://cluster.local/ns/default/sa/app"}], 200),
        (
            [{"type": "Hostname", "hostname": "no.test"}, {"type": "URI", "uri": "spiffe://cluster.local/ns/x/sa/y"}],
            503,
        ),
        ([{"type": "Hostname", "hostname": "backend.test"}], 503),
    ],
)
async def test_listed_names_replace_the_host_name(
    loopback: str, backends: Backends, ca: CertificateAuthority, sans: list[Document], status: int
) -> None:
    leaf = ca.issue("inner.test", uris=["spiffe://cluster.local/ns/default/sa/app"])
    pod = await backends.echo("pod", tls=ServerTls(leaf))
    objects = [service("a", pod.address), backend_tls_policy("a", subjectAltNames=sans), ca.config_map("backend-ca")]
    async with serve(loopback, gateway(), route([to("a")]), *objects) as served:
        assert (await served.get()).status == status


async def test_the_gateways_certificate_is_shown_to_tls_backends(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    clients = authority("clients")
    pod = await backends.echo("pod", tls=ServerTls(ca.issue("backend.test"), client_ca=clients.root))
    objects = [
        service("a", pod.address),
        backend_tls_policy("a"),
        ca.config_map("backend-ca"),
        clients.issue("gateway.test").secret("client"),
        route([to("a")]),
    ]
    shows = gateway(tls={"backend": {"clientCertificateRef": {"group": "", "kind": "Secret", "name": "client"}}})
    async with serve(loopback, shows, *objects) as served:
        echo = (await served.get()).echo
        assert echo.tls is not None
        assert echo.tls.peer_dns == ("gateway.test",)
    async with serve(loopback, gateway(), *objects) as served:
        assert (await served.get()).status in {502, 503}


async def test_a_listener_set_adds_a_listener_with_a_certificate_of_its_own(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    own = gateway(allowedListeners={"namespaces": {"from": "All"}})
    spec = {"parentRef": {"name": "gw", "namespace": "default"}, "listeners": [https_listener(hostname="team.test")]}
    listeners = resource("ListenerSet", "extra", spec, namespace="team")
    parents = [{"group": GROUP, "kind": "ListenerSet", "name": "extra"}]
    objects = [
        namespace("team"),
        listeners,
        ca.issue("team.test").secret("cert", "team"),
        route([to("a")], namespace="team", parents=parents),
    ]
    pod = await backends.echo("pod")
    async with serve(loopback, own, *objects, service("a", pod.address, namespace="team")) as served:
        assert (await served.fresh(host="team.test", tls=ClientTls(ca=ca.root))).pod == "pod"
        assert await served.pods(1) == ["404"]


async def test_grpc_is_carried_over_tls_on_both_sides(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    pod = await backends.grpc("a", tls=ServerTls(ca.issue("backend.test")))
    objects = [
        route([{"backendRefs": [{"name": "a", "port": 80}]}], kind="GRPCRoute"),
        service("a", pod.address),
        backend_tls_policy("a"),
        ca.config_map("backend-ca"),
        ca.issue("site.test").secret("cert"),
    ]
    async with serve(loopback, gateway(https_listener()), *objects) as served:
        tls = ClientTls(ca=ca.root, sni="site.test")
        result = await grpc_call(served.target(HTTPS), authority="site.test", tls=tls)
        assert result.ok, result.details
        assert result.pod == "a"


async def test_secure_websockets_pass(loopback: str, backends: Backends, ca: CertificateAuthority) -> None:
    pod = await backends.echo("pod", tls=ServerTls(ca.issue("backend.test"), alpn=("http/1.1",)))
    objects = [
        route([to("a")]),
        service("a", pod.address, app_protocol="kubernetes.io/wss"),
        backend_tls_policy("a"),
        ca.config_map("backend-ca"),
        ca.issue("site.test").secret("cert"),
    ]
    async with serve(loopback, gateway(https_listener()), *objects) as served:
        tls = ClientTls(ca=ca.root, sni="site.test")
        async with websocket(served.target(HTTPS), "/ws", host="site.test", tls=tls) as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
    assert pod.hits[0].tls is not None
