from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientConnectorCertificateError, ClientConnectorError
from aiohttp.client_reqrep import ConnectionKey

from meshgw.kube import client as module
from meshgw.kube.client import Client
from meshgw.kube.errors import ApiError, IdleError, UnreachableError
from tests.unit.kube.scripted import CUT, HANG, Script, failure, scripted

TOKEN = "a-token-of-nobody"
_KEY = ConnectionKey("cluster", 6443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None)


@pytest.fixture
async def script_and_client(tmp_path: Path) -> AsyncIterator[tuple[Script, Client]]:
    async with scripted(tmp_path, token=TOKEN) as found:
        yield found


async def _batches(client: Client, *, idle: float = 5) -> AsyncIterator[list[bytes]]:
    async for batch in client.batches("/watch", query={"watch": "1"}, idle=idle):
        yield batch


async def test_lines_are_whole_however_they_are_cut(script_and_client: tuple[Script, Client]) -> None:
    script, client = script_and_client
    script.on("/watch", b'{"a":', b"1}\n", b"two\nthr", b"ee\n" + b"x" * 200_000, b"y\n")
    lines = [line async for line in client.lines("/watch", query={"watch": "1"}, idle=5)]
    assert lines == [b'{"a":1}', b"two", b"three", b"x" * 200_000 + b"y"]
    assert script.requests == ["GET /watch?watch=1"]
    assert script.headers[0]["authorization"] == f"Bearer {TOKEN}"


async def test_first_batch_says_that_the_stream_is_open(script_and_client: tuple[Script, Client]) -> None:
    script, client = script_and_client
    script.on("/watch", HANG)
    async for batch in _batches(client):
        assert batch == []
        break


async def test_streams_that_end_within_a_line_are_cut(script_and_client: tuple[Script, Client]) -> None:
    script, client = script_and_client
    script.on("/watch", b"one\ntw")
    with pytest.raises(UnreachableError, match="cut within a line"):
        [batch async for batch in _batches(client)]
    script.on("/watch", b"one\ntw", CUT)
    with pytest.raises(UnreachableError, match="GET /watch"):
        [batch async for batch in _batches(client)]


async def test_silence_ends_a_stream(script_and_client: tuple[Script, Client]) -> None:
    script, client = script_and_client
    script.on("/watch", b"one\n", HANG)
    with pytest.raises(IdleError):
        [batch async for batch in _batches(client, idle=0.1)]


async def test_endless_line_ends(script_and_client: tuple[Script, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    script, client = script_and_client
    monkeypatch.setattr(module, "_MAX_LINE", 1000)
    script.on("/watch", *[b"x" * 100] * 20, HANG)
    with pytest.raises(UnreachableError, match="a line of more than"):
        [batch async for batch in _batches(client)]


async def test_refusals_without_status_keep_their_text(script_and_client: tuple[Script, Client]) -> None:
    script, client = script_and_client
    script.on("/thing", b"<html>busy</html>", status=503)
    with pytest.raises(ApiError) as refused:
        await client.request("GET", "/thing")
    assert (refused.value.status, refused.value.message) == (503, "<html>busy</html>")
    script.on("/thing", failure(429, "TooManyRequests", "wait"), status=429, header="Retry-After: 7\r\n")
    with pytest.raises(ApiError) as refused:
        await client.request("GET", "/thing")
    assert (refused.value.reason, refused.value.retry_after) == ("TooManyRequests", 7)


async def test_redirects_are_not_followed(script_and_client: tuple[Script, Client]) -> None:
    script, client = script_and_client
    script.on("/thing", status=302, header="Location: http://127.0.0.1:1/\r\n")
    with pytest.raises(ApiError) as refused:
        await client.request("GET", "/thing")
    assert refused.value.status == 302


async def test_tokens_are_in_no_message(script_and_client: tuple[Script, Client]) -> None:
    script, client = script_and_client
    script.on("/thing", failure(401, "Unauthorized", f"who is {TOKEN}?"), status=401)
    with pytest.raises(ApiError) as refused:
        await client.request("GET", "/thing")
    assert refused.value.message == "who is [token]?"
    script.on("/thing", CUT)
    with pytest.raises(UnreachableError) as cut:
        await client.request("POST", "/thing", body=b"{}")
    for error in (refused.value, cut.value):
        assert TOKEN not in repr(error) + str(error)
        assert error.__cause__ is None
    assert TOKEN not in repr(vars(client)) + repr(vars(client._entry)) + repr(await client._entry.access())


def test_who_is_not_there_or_not_trusted_is_named_in_plain_words() -> None:
    for problem, said in (
        (ClientConnectorError(_KEY, ConnectionRefusedError(111, "refused")), "no connection to cluster:6443: refused"),
        (ClientConnectorCertificateError(_KEY, ValueError("self\nsigned")), "cluster:6443 is not trusted: self signed"),
    ):
        with pytest.raises(UnreachableError) as failed, module._errors("GET /thing", idle=False):
            raise problem
        assert str(failed.value) == f"GET /thing: {said}"


def test_libraries_are_loaded_by_those_who_connect() -> None:
    code = (
        "import sys, meshgw.kube.watches, meshgw.kube.lease, meshgw.cli.main\n"
        "print([name for name in ('aiohttp', 'kubernetes') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
