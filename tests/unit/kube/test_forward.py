"""One request to a port of a pod, through a server that forwards as the API server and the kubelet do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from meshgw.api.meta import Key
from meshgw.kube.client import ApiError, Client, UnreachableError
from meshgw.kube.forward import get_from_pod, parse_answer
from tests.rig.forwarding import Node, program

POD = Key("shop", "edge-0")


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
async def client(node: Node, tmp_path: Path) -> AsyncIterator[Client]:
    async with node.serve(tmp_path) as made:
        yield made


def chunked(*parts: bytes) -> bytes:
    body = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts)
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


@pytest.mark.parametrize("split", [1, 7, 1 << 16])
@pytest.mark.parametrize("stay", [False, True])
@pytest.mark.parametrize(
    "form",
    [
        lambda body: chunked(body, b"!"),
        lambda body: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1) + body + b"!",
    ],
    ids=["chunked", "length"],
)
async def test_a_whole_answer_comes_back_however_it_is_cut(
    node: Node, client: Client, split: int, *, stay: bool, form: Callable[[bytes], bytes]
) -> None:
    body = b"line\r\n\r\n0\r\n\r\n" * 20
    node.split = split
    async with program(form(body), stay=stay) as port:
        node.ports[19000] = port
        assert await get_from_pod(client, POD, 19000, "/config_dump", within=5.0) == (200, body + b"!")
    assert node.tokens == ["Bearer s3cret"]


async def test_an_answer_may_end_with_the_connection(node: Node, client: Client) -> None:
    async with program(b"HTTP/1.1 503 Busy\r\n\r\nlater") as port:
        node.ports[19000] = port
        assert await get_from_pod(client, POD, 19000, "/") == (503, b"later")


async def test_a_port_that_nobody_has_says_so(client: Client) -> None:
    with pytest.raises(UnreachableError, match="connection refused"):
        await get_from_pod(client, POD, 19000, "/")


async def test_an_answer_that_is_cut_is_no_answer(node: Node, client: Client) -> None:
    async with program(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf") as port:
        node.ports[19000] = port
        with pytest.raises(UnreachableError, match="ended before"):
            await get_from_pod(client, POD, 19000, "/")


async def test_silence_is_bounded(node: Node, client: Client) -> None:
    async with program(b"", stay=True) as port:
        node.ports[19000] = port
        with pytest.raises(UnreachableError, match="no answer within"):
            await get_from_pod(client, POD, 19000, "/", within=0.2)


async def test_a_refusal_is_the_api_servers(node: Node, client: Client) -> None:
    node.authorized = False
    with pytest.raises(ApiError) as raised:
        await get_from_pod(client, POD, 19000, "/")
    assert str(raised.value) == "403 Forbidden: pods/portforward is not allowed in shop"
    assert "s3cret" not in str(raised.value)


async def test_a_pod_that_is_not_there_is_named(node: Node, client: Client) -> None:
    node.gone = {POD.name}
    with pytest.raises(ApiError) as raised:
        await get_from_pod(client, POD, 19000, "/")
    assert str(raised.value) == "404 NotFound: there is no pod shop/edge-0"


async def test_what_is_said_before_a_connection_is_closed_is_heard(node: Node, client: Client) -> None:
    """As of a pod that does not run: who asks finds the connection closed already."""
    node.closes = b"unable to do port forwarding: pod is not running"
    with pytest.raises(UnreachableError, match="pod is not running"):
        await get_from_pod(client, POD, 19000, "/")


async def test_a_server_of_another_protocol_is_left(node: Node, client: Client) -> None:
    node.speaks = ("else",)
    with pytest.raises(UnreachableError, match="does not speak"):
        await get_from_pod(client, POD, 19000, "/")


async def test_the_servers_clock_is_in_its_answers(client: Client) -> None:
    assert (await client.date()).timestamp() == 1_800_000_000


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200", b"junk\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nopen"])
def test_what_is_not_whole_is_not_parsed(data: bytes) -> None:
    assert parse_answer(data) is None
