"""Tables of what a running Envoy has, from its own dump."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from meshgw.config import MeshSettings
from meshgw.diagnose.proxy_config import (
    Sheet,
    gateway_of,
    list_clusters,
    list_endpoints,
    list_listeners,
    list_routes,
    list_secrets,
)
from tests.envoy.application import application, placed
from tests.envoy.gateway import OFFSET, https_listener, listener, path, resource, route, service, to
from tests.rig.certs import CertificateAuthority
from tests.rig.envoy import Admin

AMBIENT = Path(__file__).parents[2] / "manifests" / "examples" / "ambient"


def cells(sheet: Sheet, *columns: str) -> set[tuple[str, ...]]:
    """Some columns of all rows."""
    at = [sheet.columns.index(column) for column in columns]
    return {tuple(row[index] for index in at) for row in sheet.rows}


async def test_an_ingress_gateways_proxy(loopback: str, ca: CertificateAuthority) -> None:
    listeners = [
        listener(),
        https_listener("https", certificates=["cert"], hostname="site.test"),
        listener("db", port=5432, protocol="TCP"),
    ]
    documents = [
        placed(loopback, *listeners),
        route([to("web", path("PathPrefix", "/shop"))], "site.test", name="shop"),
        resource("TCPRoute", "db", {"parentRefs": [{"name": "gw", "sectionName": "db"}], "rules": [to("web")]}),
        service("web", ("127.0.0.1", 9)),
        ca.issue("site.test").secret("cert"),
    ]
    async with application(loopback, *documents) as instance:
        admin = Admin(instance.path.parent / "run" / "default.gw" / "admin.sock")
        dump = await admin.json("/config_dump?include_eds")
    now = datetime.now(UTC)
    assert gateway_of(dump) == "default/gw"
    assert cells(list_listeners(dump), "NAME", "ADDRESS", "MATCH", "ORIGIN") == {
        ("tcp/80", f"{loopback}:{80 + OFFSET}", "any", "Gateway default/gw"),
        ("tcp/443", f"{loopback}:{443 + OFFSET}", "SNI site.test", "Gateway default/gw, listener https"),
        ("tcp/5432", f"{loopback}:5432", "any", "Gateway default/gw, listener db"),
    }
    assert cells(list_listeners(dump), "DESTINATION") >= {("service/default/web/80/tcp",), ("http/80",)}
    shop = ("site.test", "/shop/*", "service/default/web/80", "HTTPRoute default/shop, rule 0")
    assert shop in cells(list_routes(dump), "DOMAINS", "MATCH", "DESTINATION", "ORIGIN")
    assert {("service/default/web/80", "EDS", "plain", "Service default/web")} <= cells(
        list_clusters(dump), "NAME", "TYPE", "TRANSPORT", "ORIGIN"
    )
    assert ("127.0.0.1:9", "HEALTHY", "service/default/web/80") in cells(
        list_endpoints(dump), "ADDRESS", "STATUS", "CLUSTER"
    )
    secrets = list_secrets(dump, now)
    assert cells(secrets, "TYPE", "STATE", "SUBJECT", "ORIGIN") == {
        ("certificate", "active", "site.test", "Secret default/cert")
    }
    (row,) = secrets.documents()
    end = datetime.strptime(row["not_after"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert cells(list_secrets(dump, end + timedelta(seconds=1)), "STATE") == {("expired",)}
    assert cells(list_secrets(dump, now - timedelta(days=3650)), "STATE") == {("not yet valid",)}


async def test_a_waypoints_proxy(loopback: str) -> None:
    texts = [file.read_text().replace("127.0.15.10", loopback) for file in sorted(AMBIENT.glob("*.yaml"))]
    async with application(loopback, *texts, mesh=MeshSettings()) as instance:
        admin = Admin(instance.path.parent / "run" / "shop.waypoint" / "admin.sock")
        dump = await admin.json("/config_dump?include_eds")
    assert ("shop.shop.svc.cluster.local:80 http", "service/shop/shop/80", "Service shop/shop") in cells(
        list_listeners(dump), "MATCH", "DESTINATION", "ORIGIN"
    )
    assert {
        ("/* x-version=v2", "service/shop/shop-v2/80", "HTTPRoute shop/shop, rule 0"),
        ("/*", "service/shop/shop-v1/80 (90), service/shop/shop-v2/80 (10)", "HTTPRoute shop/shop, rule 1"),
        ("CONNECT", "main_internal", "Service shop/ledger"),
    } <= cells(list_routes(dump), "MATCH", "DESTINATION", "ORIGIN")
    assert {("connect_originate", "tls"), ("main_internal", "internal"), ("service/shop/shop-v1/80", "hbone")} <= cells(
        list_clusters(dump), "NAME", "TRANSPORT"
    )
    assert ("127.0.15.23:8080 via connect_originate", "spiffe://cluster.local/ns/shop/sa/ledger") in cells(
        list_endpoints(dump), "ADDRESS", "IDENTITY"
    )
    secrets = list_secrets(dump, datetime.now(UTC))
    assert cells(secrets, "NAME", "TYPE", "STATE") == {
        ("default", "certificate", "active"),
        ("ROOTCA", "roots", "active"),
    }
    assert ("spiffe://cluster.local/ns/shop/sa/waypoint",) in cells(secrets, "SUBJECT")
    assert "PRIVATE" not in str(secrets)
