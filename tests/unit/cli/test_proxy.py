"""`meshgw proxy`: through a server that forwards to pods."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from meshgw.cli.main import main
from meshgw.cluster.proxies import Connected, Share
from tests.rig.forwarding import Node, program

DUMP = {
    "configs": [
        {
            "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
            "bootstrap": {"node": {"id": "shop/edge/edge-0"}},
        },
        {
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "dynamic_active_clusters": [{"cluster": {"name": "service/shop/web/80", "type": "EDS"}}],
        },
    ]
}


def answer(value: object) -> bytes:
    body = msgspec.json.encode(value)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def run(
    tmp_path: Path,
    *arguments: str,
    pods: tuple[str, ...] = (),
    gone: tuple[str, ...] = (),
    says: bytes = b"",
    port: int = 19000,
) -> Result:
    """Run the command beside the event loop of a server and of what runs in its pods."""

    async def beside() -> Result:
        node = Node()
        node.pods, node.gone = list(pods), set(gone)
        async with program(says) as real, node.serve(tmp_path):
            node.ports[port] = real
            command = ["proxy", *arguments, "--kubeconfig", str(tmp_path / "kubeconfig")]
            return await asyncio.to_thread(CliRunner().invoke, main, command)

    return asyncio.run(beside())


def test_a_proxys_configuration_is_a_table_with_origins(tmp_path: Path) -> None:
    done = run(tmp_path, "config", "edge-0", "clusters", "-n", "shop", says=answer(DUMP))
    assert done.exit_code == 0, done.output
    head, row = done.output.splitlines()
    assert head.split() == ["NAME", "TYPE", "TRANSPORT", "ORIGIN"]
    assert row.split() == ["service/shop/web/80", "EDS", "plain", "Service", "shop/web"]


@pytest.mark.parametrize("section", ["listeners", "routes", "endpoints", "secrets"])
def test_a_section_without_rows_says_so(tmp_path: Path, section: str) -> None:
    done = run(tmp_path, "config", "edge-0", section, says=answer(DUMP))
    assert (done.exit_code, done.output) == (0, f"no {section}\n")


def test_programs_get_documents(tmp_path: Path) -> None:
    done = run(tmp_path, "config", "edge-0", "clusters", "-o", "json", says=answer(DUMP))
    assert json.loads(done.output) == [
        {"name": "service/shop/web/80", "type": "EDS", "transport": "plain", "origin": "Service shop/web"}
    ]


@pytest.mark.parametrize("says", [b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", answer("text")])
def test_what_is_no_envoy_is_an_error(tmp_path: Path, says: bytes) -> None:
    done = run(tmp_path, "config", "edge-0", "clusters", says=says)
    assert done.exit_code == 3
    assert "default/edge-0 gives no configuration" in done.output


def test_a_pod_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "config", "edge-0", "clusters", "-n", "shop", gone=("edge-0",))
    assert (done.exit_code, done.output) == (
        3,
        "error: there is no pod shop/edge-0; see -n, and `meshgw proxy list`\n",
    )


def test_a_pod_that_cannot_be_reached_is_an_error(tmp_path: Path) -> None:
    done = run(tmp_path, "config", "edge-0", "clusters", port=1)
    assert (done.exit_code, "connection refused" in done.output) == (3, True)


@pytest.mark.parametrize(("state", "code"), [("synced", 0), ("waiting", 0), ("refused", 1)])
def test_the_list_fails_when_a_proxy_refused_something(tmp_path: Path, state: str, code: int) -> None:
    proxy = Connected(
        node="shop/edge/edge-0", gateway="shop/edge", address="x", protocol="delta", seconds=90.0,
        services={"CDS": Share(state=state, resources=2)},
    )  # fmt: skip
    done = run(tmp_path, "list", "-o", "yaml", pods=("meshgw-1",), says=answer([proxy]), port=8082)
    assert done.exit_code == code, done.output
    assert f"cds: {state} (2)" in done.output


def test_an_installation_without_controller_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "list")
    assert (done.exit_code, done.output) == (
        3,
        "error: no controller runs in meshgw-system; see --system-namespace\n",
    )


def test_a_replica_that_does_not_answer_is_named_beside_what_others_tell(tmp_path: Path) -> None:
    done = run(tmp_path, "list", pods=("meshgw-1",), says=b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", port=8082)
    assert (done.exit_code, done.output) == (3, "error: meshgw-system/meshgw-1 answers 500\n")


def test_a_controller_without_proxies_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "list", pods=("meshgw-1",), says=answer([]), port=8082)
    assert (done.exit_code, done.output) == (0, "no proxies\n")
