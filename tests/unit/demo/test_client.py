"""The demo's clients against its own applications, and against servers of other kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from meshgw.demo.backend import Backend
from meshgw.demo.client import Connection, Greeting, Load, greet
from meshgw.demo.plan import APP_PORT, Plan, claim_plan
from meshgw.standalone.lock import InUseError
from tests.rig.addresses import free_port
from tests.rig.certs import authority, spiffe
from tests.rig.servers import StreamServer
from tests.rig.tls import ServerTls
from tests.rig.waiting import eventually


@pytest.fixture
def plan() -> Iterator[Plan]:
    with claim_plan() as claimed:
        yield claimed


@pytest.fixture
async def backend(plan: Plan) -> AsyncIterator[Backend]:
    async with Backend(plan.workloads[0]) as started:
        yield started


async def test_an_application_says_who_it_is_and_counts(backend: Backend) -> None:
    async with Connection(backend.workload.address, APP_PORT) as connection:
        samples = [await connection.get() for _ in range(3)]
    assert {(sample.status, sample.workload, sample.failed) for sample in samples} == {(200, "shop-v1", False)}
    assert backend.requests == 3
    assert all(sample.ended >= sample.began for sample in samples)


async def test_a_connection_that_the_application_closes_is_opened_again(backend: Backend) -> None:
    async with Connection(backend.workload.address, APP_PORT) as connection:
        assert not (await connection.get({"connection": "close"})).failed
        lost = await connection.get()
        assert lost.failed
        assert lost.error
        assert not (await connection.get()).failed


async def test_an_application_answers_requests_with_bodies_and_survives_junk(backend: Backend) -> None:
    reader, writer = await asyncio.open_connection(backend.workload.address, APP_PORT)
    writer.write(b"POST /cart HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc")
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    assert await reader.readline() == b"shop-v1 answers POST /cart\n"
    writer.write(b"POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    async with Connection(backend.workload.address, APP_PORT) as connection:
        assert not (await connection.get()).failed


async def test_an_application_whose_address_is_taken_says_so(backend: Backend) -> None:
    with pytest.raises(InUseError, match="cannot be listened on"):
        async with Backend(backend.workload):
            pass


async def test_a_failure_is_a_sample() -> None:
    async with Connection("127.0.0.1", free_port()) as connection:
        sample = await connection.get()
    assert sample.failed
    assert sample.status == 0
    assert "refused" in sample.error.lower()


class Speaker(StreamServer):
    """A server that says something, whatever it is asked, and waits for the client to leave unless it hangs up."""

    def __init__(self, words: bytes, *, hangs_up: bool = False, tls: ServerTls | None = None) -> None:
        super().__init__(tls=tls)
        self.words, self.hangs_up = words, hangs_up

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.words)
        await writer.drain()
        while not self.hangs_up and await reader.read(65536):
            pass


async def test_a_connection_closed_without_an_answer_is_a_failure() -> None:
    async with Speaker(b"", hangs_up=True) as server, Connection(*server.address) as connection:
        sample = await connection.get()
    assert sample.status == 0
    assert sample.error


async def test_load_flows_until_the_block_ends() -> None:
    async with Speaker(b"HTTP/1.1 204 No Content\r\n\r\n" * 1000) as server:
        async with Load(server.port, connections=2) as load:
            await eventually(lambda: len(load.samples) >= 10, what="ten requests")
        assert server.connections == 2
        assert {sample.status for sample in load.samples} == {204}


async def greeted(tls: ServerTls) -> Greeting:
    async with Speaker(b"settings", tls=tls) as server:
        return await greet(*server.address)


async def test_a_greeting_tells_a_refusal_from_an_admission() -> None:
    leaf = spiffe("waypoint")
    refused = await greeted(ServerTls(leaf, client_ca=authority("mesh").root, alpn=("h2",)))
    assert refused == ("spiffe://cluster.local/ns/default/sa/waypoint", leaf.serial, refused[2])
    assert refused[2]
    assert (await greeted(ServerTls(leaf, alpn=("h2",))))[2] == ""


async def test_a_greeting_without_a_server_is_an_error() -> None:
    with pytest.raises(OSError, match=r"refused|Connect"):
        await greet("127.0.0.1", free_port())
