"""The bootstrap of a proxy in a cluster: a real Envoy, its files replaced as a kubelet replaces them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import pytest

from meshgw.emit.bootstrap import Bootstrap, build_bootstrap
from meshgw.emit.proxy_config import CONFIG_FOLDER, TOKEN_FOLDER
from meshgw.emit.proxy_listeners import METRICS_PATH, READY_PATH, StatusListeners
from meshgw.emit.proxy_xds import XdsCredentials, secret_files
from tests.rig.addresses import free_port
from tests.rig.certs import CertificateAuthority, authority, bundle
from tests.rig.discovery import Discovery
from tests.rig.envoy import run_files, validate
from tests.rig.waiting import eventually
from tests.unit.emit.deployed import deploy_with

NAME = "localhost"
DRAIN = "/drain/0123"


class Volume:
    """A folder as a kubelet fills it: files are links into a folder that a link names, and that link is renamed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turn = 0

    def write(self, files: Mapping[str, str]) -> None:
        self._turn += 1
        version = self.path / f"..{self._turn}"
        version.mkdir(parents=True)
        for name, text in files.items():
            (version / name).write_text(text)
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        fresh = self.path / "..data_tmp"
        fresh.symlink_to(version.name)
        os.replace(fresh, self.path / "..data")  # noqa: PTH105 - as a kubelet does it


class Proxy:
    """The files of one proxy, and where it answers probes."""

    def __init__(self, folder: Path, server: Discovery, bind: str, *, drain_seconds: int = 1) -> None:
        self.folder = folder
        self.bind = bind
        self.credentials = XdsCredentials(
            server_name=NAME, folder=str(folder / "config"), token_folder=str(folder / "token")
        )
        self._config, self._token = Volume(folder / "config"), Volume(folder / "token")
        self.bootstrap = build_bootstrap(
            Bootstrap(
                xds=f"{NAME}:{server.port}",
                admin=f"127.0.0.1:{free_port()}",
                credentials=self.credentials,
                status=StatusListeners(bind=bind, drain_path=DRAIN, drain_seconds=drain_seconds),
            )
        )
        (folder / "envoy.json").write_text(json.dumps(self.bootstrap))

    def trust(self, roots: bytes) -> None:
        self._config.write({"ca.crt": roots.decode(), **secret_files(self.credentials)})

    def sign_in(self, token: str) -> None:
        self._token.write({"token": token})

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Path]:
        async with run_files(self.folder, "--service-node", "default/web/pod", "--service-cluster", "web") as log:
            yield log

    async def get(self, path: str, *, port: int = 15021) -> httpx.Response:
        async with httpx.AsyncClient(timeout=10) as client:
            return await client.get(f"http://{self.bind}:{port}{path}")

    async def ready(self) -> bool:
        try:
            return (await self.get(READY_PATH)).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
async def server(ca: CertificateAuthority) -> AsyncIterator[Discovery]:
    async with Discovery(ca.issue(NAME)) as started:
        yield started


@pytest.fixture
def proxy(tmp_path: Path, server: Discovery, loopback: str, ca: CertificateAuthority) -> Proxy:
    made = Proxy(tmp_path, server, loopback)
    made.trust(ca.root)
    made.sign_in("first")
    return made


async def test_envoy_takes_the_bootstrap(proxy: Proxy) -> None:
    node = {"node": {"id": "default/web/pod", "cluster": "web"}}
    verdict = await validate({**proxy.bootstrap, **node})
    assert verdict, verdict.error


@pytest.mark.parametrize(
    "spec",
    [
        "{}",
        "{service: {ipFamilies: [IPv6]}}",
        "{envoy: {drainSeconds: 0, allStats: true, maxConnections: 10}}",
    ],
)
async def test_envoy_takes_the_config_map_of_a_gateway(spec: str, tmp_path: Path, ca: CertificateAuthority) -> None:
    data = deploy_with(spec, xds_roots=ca.root.decode()).objects()["ConfigMap"]["data"]
    for name, text in data.items():
        moved = text.replace(CONFIG_FOLDER, str(tmp_path)).replace(TOKEN_FOLDER, str(tmp_path))
        (tmp_path / name).write_text(moved)
    (tmp_path / "token").write_text("token")
    node = {"node": {"id": "default/gw/pod", "cluster": "gw"}}
    verdict = await validate({**json.loads((tmp_path / "envoy.json").read_text()), **node})
    assert verdict, verdict.error


async def test_a_stream_carries_the_token_and_another_one_the_next_token(proxy: Proxy, server: Discovery) -> None:
    async with proxy.run():
        await eventually(proxy.ready, what="ready", within=20)
        assert server.callers == ["Bearer first"]
        assert server.nodes == ["default/web/pod"]
        proxy.sign_in("second")

        async def renewed() -> bool:
            server.hang_up()
            return await server.next_caller() == "Bearer second"

        await eventually(renewed, what="a stream with the new token", within=20)
        assert await proxy.ready()


async def test_another_root_is_trusted_without_a_restart_and_the_former_one_no_longer(
    proxy: Proxy, server: Discovery, ca: CertificateAuthority
) -> None:
    other = authority("another discovery root")
    async with proxy.run() as log:
        await eventually(proxy.ready, what="ready", within=20)
        proxy.trust(bundle(ca, other))
        await server.restart(other.issue(NAME))
        assert await server.next_caller(within=20) == "Bearer first"
        proxy.trust(other.root)
        await server.restart(ca.issue(NAME))
        await eventually(lambda: "CERTIFICATE_VERIFY_FAILED" in log.read_text(), what="a refusal", within=20)
        known = len(server.callers)
        await server.restart(other.issue(NAME))
        await eventually(lambda: len(server.callers) > known, what="the trusted server again", within=20)


@pytest.mark.parametrize("wrong", ["name", "root"])
async def test_a_server_with_another_name_or_root_gets_no_token(
    proxy: Proxy, server: Discovery, ca: CertificateAuthority, wrong: str
) -> None:
    leaf = ca.issue("elsewhere") if wrong == "name" else authority("a stranger").issue(NAME)
    await server.restart(leaf)
    async with proxy.run() as log:
        await eventually(lambda: "CERTIFICATE_VERIFY_FAILED" in log.read_text(), what="a refusal", within=20)
        assert server.callers == []
        assert not await proxy.ready()


async def test_a_proxy_without_configuration_is_not_ready(proxy: Proxy, server: Discovery) -> None:
    server.silent = True
    async with proxy.run():
        await server.next_caller(within=20)
        assert not await proxy.ready()
        server.silent = False
        server.hang_up()
        await eventually(proxy.ready, what="ready", within=20)


async def test_nothing_but_the_statistics_is_on_the_metrics_port(proxy: Proxy) -> None:
    async with proxy.run():
        await eventually(proxy.ready, what="ready", within=20)
        found = await proxy.get(METRICS_PATH, port=15020)
        assert found.status_code == 200
        assert "envoy_server_live" in found.text
        refused = [("/config_dump", 15020), ("/quitquitquit", 15020), ("/config_dump", 15021), ("/drain/other", 15021)]
        assert {(await proxy.get(path, port=port)).status_code for path, port in refused} == {404}


async def test_the_hook_of_the_pod_drains_and_answers_when_that_is_done(proxy: Proxy) -> None:
    async with proxy.run():
        await eventually(proxy.ready, what="ready", within=20)
        clock = asyncio.get_running_loop().time
        start = clock()
        hook = asyncio.create_task(proxy.get(DRAIN))

        async def leaving() -> bool:
            return not await proxy.ready()

        await eventually(leaving, what="not ready", within=5)
        assert not hook.done()
        answer = await hook
        assert answer.status_code == 200
        assert clock() - start >= 1
        metrics = await proxy.get(METRICS_PATH, port=15020)
        assert (metrics.status_code, metrics.headers["connection"]) == (200, "close")
        assert (await proxy.get("/healthz/live")).status_code == 200
