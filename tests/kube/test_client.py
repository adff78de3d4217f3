"""Requests to a real API server, with each way to say who one is."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import yaml

from meshgw.api.meta import Key
from meshgw.kube import access
from meshgw.kube.access import Entry, KubeSettings
from meshgw.kube.client import Client, connect, path_of
from meshgw.kube.errors import AccessError, ApiError, IdleError, UnreachableError
from tests.cluster.apiserver import ApiServer
from tests.kube.following import Author, kind_of
from tests.rig.waiting import eventually

SELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REVIEW = b'{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}'


async def who(client: Client) -> str:
    """The name by which the API server knows us."""
    answer = json.loads(await client.request("POST", SELF, body=REVIEW))
    name: str = answer["status"]["userInfo"]["username"]
    return name


async def test_refusals_are_typed(client: Client, space: str) -> None:
    author = Author(client, space)
    await author.config_maps("taken")
    with pytest.raises(ApiError) as conflict:
        await author.config_maps("taken")
    assert (conflict.value.status, conflict.value.reason) == (409, "AlreadyExists")
    with pytest.raises(ApiError) as missing:
        await client.request("GET", path_of(kind_of("ConfigMap"), Key(space, "none")))
    assert (missing.value.status, missing.value.reason) == (404, "NotFound")
    assert missing.value.message == 'configmaps "none" not found'
    with pytest.raises(ApiError) as invalid:
        await author.create("ConfigMap", "In Valid")
    assert (invalid.value.status, invalid.value.reason) == (422, "Invalid")


async def test_lines_of_a_watch(client: Client, space: str) -> None:
    path = path_of(kind_of("ConfigMap"), namespace=space)
    await Author(client, space).config_maps("a", "b")
    lines: list[bytes] = []
    with pytest.raises(IdleError):
        await _read(client.lines(path, query={"watch": "true"}, idle=0.5), lines)
    assert sorted(json.loads(line)["object"]["metadata"]["name"] for line in lines) == ["a", "b"]
    ended = [line async for line in client.lines(path, query={"watch": "1", "timeoutSeconds": "1"}, idle=30)]
    assert len(ended) == 2


async def test_tokens_of_service_accounts(apiserver: ApiServer, client: Client, space: str, tmp_path: Path) -> None:
    await Author(client, space).create("ServiceAccount", "gateway")
    path = path_of(kind_of("ServiceAccount"), Key(space, "gateway"), subresource="token")
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["istio-ca"]}}
    token = json.loads(await client.request("POST", path, body=json.dumps(body).encode()))["status"]["token"]
    assert json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["aud"] == ["istio-ca"]
    found = await asyncio.to_thread(apiserver.account_kubeconfig, space, "gateway", tmp_path / "gateway.conf")
    async with connect(KubeSettings(kubeconfig=str(found))) as gateway:
        assert await who(gateway) == f"system:serviceaccount:{space}:gateway"


async def test_pod_account_follows_its_token_file(
    apiserver: ApiServer, client: Client, space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that is refused is read again; the old one is of a Secret that is gone, so nobody accepts it."""
    monkeypatch.setattr(access, "_HASTE", 0.0)
    author = Author(client, space)
    await author.create("ServiceAccount", "controller")
    await author.create("Secret", "bound")
    (tmp_path / "token").write_text(await _bound_token(client, space))
    (tmp_path / "ca.crt").write_bytes(apiserver.authority)
    host, _, port = apiserver.url.removeprefix("https://").partition(":")
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    async with connect(KubeSettings(account=tmp_path), environ=environ) as pod:
        assert await who(pod) == f"system:serviceaccount:{space}:controller"
        await author.delete("Secret", "bound")
        await _until_refused(pod)
        (tmp_path / "token").write_text(await asyncio.to_thread(apiserver.token, space, "controller"))
        assert await who(pod) == f"system:serviceaccount:{space}:controller"
        (tmp_path / "token").unlink()
        assert await who(pod)  # the one in memory is still good


async def _bound_token(client: Client, space: str) -> str:
    spec = {"boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "bound"}}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = path_of(kind_of("ServiceAccount"), Key(space, "controller"), subresource="token")
    token: str = json.loads(await client.request("POST", path, body=json.dumps(body).encode()))["status"]["token"]
    return token


async def _until_refused(client: Client) -> None:
    """The API server remembers for 10 s whom it let in."""

    async def is_refused() -> bool:
        try:
            await who(client)
        except ApiError as error:
            return error.status == 401
        return False

    await eventually(is_refused, within=30, interval=0.2)


async def test_exec_plugin_runs_again_when_it_has_to(
    apiserver: ApiServer, space: str, client: Client, tmp_path: Path
) -> None:
    await Author(client, space).create("ServiceAccount", "one")
    await Author(client, space).create("ServiceAccount", "two")
    token_file, runs = tmp_path / "token", tmp_path / "runs"
    token_file.write_text(await asyncio.to_thread(apiserver.token, space, "one"))
    settings = KubeSettings(kubeconfig=_plugin(apiserver, tmp_path, token_file, runs))
    clock = [0.0]
    entry = Entry(settings, environ={}, now=lambda: clock[0])
    first = await entry.access()
    clock[0] += 61
    assert await entry.access() is first  # it gave no end, so it is good until it is refused
    assert runs.read_text() == "run\n"
    token_file.write_text("other")
    clock[0] += 61
    other = await entry.access(refused=first)
    assert other.authorization == "Bearer other"
    assert runs.read_text() == "run\n" * 2
    async with connect(settings, environ={}) as plugged:
        with pytest.raises(ApiError) as refused:
            await who(plugged)
        assert refused.value.status == 401


async def test_exec_plugin_that_gives_nothing(apiserver: ApiServer, tmp_path: Path) -> None:
    settings = KubeSettings(kubeconfig=_plugin(apiserver, tmp_path, tmp_path / "missing", tmp_path / "runs"))
    with pytest.raises(AccessError, match="exec plugin"):
        async with connect(settings, environ={}):
            pass


def _plugin(server: ApiServer, folder: Path, token: Path, runs: Path) -> str:
    """A kubeconfig whose user is known to a program."""
    program = folder / "plugin"
    credential = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"}}'
    program.write_text(
        f"#!/bin/sh\necho run >>{runs}\ntoken=$(cat {token}) || exit 1\nprintf '{credential}' \"$token\"\n"
    )
    program.chmod(stat.S_IRWXU)
    document = yaml.safe_load(server.kubeconfig.read_text())
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program), "interactiveMode": "Never"}
    document["users"][0]["user"] = {"exec": command}
    path = folder / "plugin.conf"
    path.write_text(yaml.safe_dump(document))
    return str(path)


async def test_keys_of_a_kubeconfig_do_not_stay_in_files(
    apiserver: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_memory", lambda: str(tmp_path / "memory"))
    path = await asyncio.to_thread(apiserver.user_kubeconfig, "jane", tmp_path / "jane.conf")
    for _ in range(2):  # the second time nothing is remembered of files that are gone
        async with connect(KubeSettings(kubeconfig=str(path))) as jane:
            assert await who(jane) == "jane"
            assert list((tmp_path / "memory").iterdir()) == []


async def test_server_with_an_unknown_certificate_is_not_spoken_to(apiserver: ApiServer, tmp_path: Path) -> None:
    document = yaml.safe_load(apiserver.kubeconfig.read_text())
    cluster = document["clusters"][0]["cluster"]
    cluster["certificate-authority-data"] = base64.b64encode(_stranger()).decode()
    path = tmp_path / "stranger.conf"
    path.write_text(yaml.safe_dump(document))
    async with connect(KubeSettings(kubeconfig=str(path))) as client:
        with pytest.raises(UnreachableError, match="certificate verify failed"):
            await client.request("GET", "/version")


def _stranger() -> bytes:
    from tests.cluster.pki import ClusterAuthority

    return ClusterAuthority().pem


@pytest.mark.slow
async def test_server_that_does_not_answer(start_apiserver: Callable[..., ApiServer]) -> None:
    server = await asyncio.to_thread(start_apiserver)
    async with connect(KubeSettings(kubeconfig=str(server.kubeconfig))) as client:
        async with contextlib.aclosing(client.lines("/api/v1/pods", query={"watch": "true"}, idle=1)) as lines:
            reading = asyncio.gather(_read(lines))
            await client.request("GET", "/version")
            await asyncio.to_thread(server.server.freeze)
            with pytest.raises(UnreachableError, match="GET /version: no answer in time"):
                await client.request("GET", "/version", timeout=0.3)
            with pytest.raises(IdleError):
                await reading
        await asyncio.to_thread(server.server.kill)
        with pytest.raises(UnreachableError, match=r"GET /version: no connection to \S+: Connect call failed"):
            await client.request("GET", "/version")


async def _read(lines: AsyncIterator[bytes], into: list[bytes] | None = None) -> None:
    async for line in lines:
        if into is not None:
            into.append(line)
