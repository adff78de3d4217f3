"""Proxies as replicas tell of them, and as people are shown them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from meshgw.cluster.proxies import (
    PATH,
    REFUSED,
    SYNCED,
    UNUSED,
    WAITING,
    Connected,
    Gathered,
    Share,
    collect,
    describe,
    render,
    serve_proxies,
)
from meshgw.emit.resource import CLUSTER, LISTENER, ROUTE_CONFIGURATION, SECRET
from meshgw.kube.client import ApiError
from meshgw.xds.proxy import ProxyState, TypeState
from tests.rig.clients import request
from tests.rig.forwarding import Node, program

STATE = ProxyState(
    proxy=1,
    node_id="shop/edge/edge-meshgw-7f9c",
    group="shop/edge",
    address="ipv4:10.0.0.1:4000",
    protocol="delta",
    connected_at=100.0,
    types={
        CLUSTER: TypeState(resources=3, version_sent="2", version_acked="2"),
        LISTENER: TypeState(resources=1, version_sent="2", version_acked="1", unanswered=1),
        ROUTE_CONFIGURATION: TypeState(resources=2, version_sent="2", version_acked="1", nack="bad regex"),
        SECRET: TypeState(),
        "type.googleapis.com/unknown": TypeState(resources=1),
    },
)


def test_what_a_proxy_has_of_each_service() -> None:
    (found,) = describe([STATE], 165.25)
    assert {name: share.state for name, share in found.services.items()} == {
        "CDS": SYNCED,
        "LDS": WAITING,
        "RDS": REFUSED,
        "SDS": UNUSED,
    }
    assert (found.name, found.gateway, found.seconds) == ("edge-meshgw-7f9c", "shop/edge", 65.2)
    assert not found.is_synced


def test_a_proxy_that_left_is_not_told_of() -> None:
    assert describe([msgspec.structs.replace(STATE, connected=False)], 165.0) == ()


def test_the_table_begins_with_what_is_amiss() -> None:
    fine = Connected(
        node="a/b/pod-1", gateway="a/b", address="x", protocol="delta", seconds=5.0,
        services={"CDS": Share(state=SYNCED, resources=4)},
    )  # fmt: skip
    bad = describe([STATE], 100.0 + 7300)
    sheet = render({"meshgw-1": [fine], "meshgw-2": bad})
    assert [row["name"] for row in sheet.documents()] == ["edge-meshgw-7f9c", "pod-1"]
    first, second = sheet.documents()
    assert (first["rds"], first["controller"], first["connected"], first["complaint"]) == (
        "refused (2)",
        "meshgw-2",
        "2h",
        "bad regex",
    )
    assert (second["cds"], second["eds"], second["connected"], second["complaint"]) == ("synced (4)", "-", "5s", "-")


@pytest.mark.parametrize(("seconds", "shown"), [(59.0, "59s"), (60.0, "1m"), (3600.0, "1h"), (200_000.0, "2d")])
def test_times_have_one_unit(seconds: float, shown: str) -> None:
    found = Connected(node="n", gateway="g", address="", protocol="sotw", seconds=seconds)
    assert render({"c": [found]}).documents()[0]["connected"] == shown


async def test_all_replicas_are_asked_through_the_api_server(tmp_path: Path) -> None:
    node = Node()
    node.pods = ["meshgw-2", "meshgw-1"]
    async with (
        serve_proxies(lambda: [STATE], lambda: 165.0, listen="127.0.0.1:0") as port,
        node.serve(tmp_path) as client,
    ):
        node.ports[8082] = port
        found = await collect(client, "meshgw-system")
    assert list(found.told) == ["meshgw-1", "meshgw-2"]
    assert list(found.told.values()) == [describe([STATE], 165.0)] * 2
    assert found.silent == {}


async def test_a_pod_that_is_gone_meanwhile_is_no_replica(tmp_path: Path) -> None:
    node = Node()
    node.pods, node.gone = ["meshgw-1", "meshgw-2"], {"meshgw-2"}
    async with program(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]") as port, node.serve(tmp_path) as client:
        node.ports[8082] = port
        assert await collect(client, "meshgw-system") == Gathered(told={"meshgw-1": ()})


async def test_who_may_not_ask_is_told(tmp_path: Path) -> None:
    node = Node()
    node.pods, node.authorized = ["meshgw-1"], False
    async with node.serve(tmp_path) as client:
        with pytest.raises(ApiError) as caught:
            await collect(client, "meshgw-system")
    assert caught.value.status == 403


async def test_nothing_else_is_served() -> None:
    async with serve_proxies(list, lambda: 0.0, listen="127.0.0.1:0") as port:
        assert (await request(("127.0.0.1", port), PATH)).body == b"[]"
        assert (await request(("127.0.0.1", port), "/")).status == 404


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n?"]
)
async def test_a_replica_that_tells_nothing_is_named(tmp_path: Path, answer: bytes) -> None:
    node = Node()
    node.pods = ["meshgw-1"]
    async with program(answer) as port, node.serve(tmp_path) as client:
        node.ports[8082] = port
        found = await collect(client, "meshgw-system")
    assert (found.told, list(found.silent)) == ({}, ["meshgw-1"])
    assert "meshgw-system/meshgw-1" in found.silent["meshgw-1"]
