"""The report on an installation, by a real API server: from nothing to whole, and what breaks."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from meshgw.cli.main import main
from meshgw.cluster.checks import (
    Check,
    Question,
    State,
    judge_clock,
    judge_images,
    judge_leader,
    judge_roots,
    run_checks,
)
from meshgw.install.rules import Scope
from meshgw.kube.client import KubeSettings, connect
from tests.cluster.apiserver import ApiServer, run_apiserver

pytestmark = [pytest.mark.apiserver, pytest.mark.xdist_group("checks"), pytest.mark.timeout(300)]

MANIFESTS = Path(__file__).parents[3] / "manifests"
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def server(_programs: None) -> Iterator[ApiServer]:
    """An API server of its own, as an installation is one for a whole cluster; the first test installs meshgw on it."""
    with run_apiserver() as started:
        started.install_gateway_api("experimental")
        started.install_istio()
        yield started


@pytest.fixture
def whole(server: ApiServer) -> ApiServer:
    """The same with an installation that lacks nothing."""
    install(server)
    make_whole(server)
    return server


def report(server: ApiServer, kubeconfig: Path | None = None, **question: Any) -> dict[str, list[Check]]:
    """All checks by name."""

    async def ask() -> list[Check]:
        async with connect(KubeSettings(kubeconfig=str(kubeconfig or server.kubeconfig))) as client:
            return await run_checks(client, Question(**question))

    found: dict[str, list[Check]] = {}
    for check in asyncio.run(ask()):
        found.setdefault(check.name, []).append(check)
    return found


def states(checks: dict[str, list[Check]]) -> dict[str, str]:
    """The worst state of each."""
    order = [State.OK, State.WARN, State.ERROR]
    return {name: max((check.state for check in some), key=order.index).value for name, some in checks.items()}


def install(server: ApiServer) -> None:
    server.apply(server.kubectl("kustomize", str(MANIFESTS / "base")))


def make_whole(server: ApiServer) -> None:
    """What the controller, istiod and Kubernetes' controllers would have written."""
    condition = {
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    for name in ("meshgw", "meshgw-egress", "meshgw-waypoint"):
        patch = json.dumps({"status": {"conditions": [condition]}})
        server.kubectl("patch", "gatewayclass", name, "--subresource=status", "--type=merge", "-p", patch)
    ready = json.dumps({"status": {"replicas": 2, "readyReplicas": 2}})
    home = ["-n", "meshgw-system"]
    server.kubectl(*home, "patch", "deployment", "meshgw", "--subresource=status", "--type=merge", "-p", ready)
    server.create_namespace("istio-system")
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    server.apply(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "meshgw", "namespace": "meshgw-system"},
            "spec": {"holderIdentity": "meshgw-1", "leaseDurationSeconds": 600, "renewTime": now},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "istio-ca-root-cert", "namespace": "istio-system"},
            "data": {"root-cert.pem": root(datetime.now(UTC), 3650)},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "istiod-1",
                "namespace": "istio-system",
                "labels": {"kubernetes.io/service-name": "istiod"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"]}],
        },
    )


def test_an_installation_from_nothing_to_whole(server: ApiServer) -> None:
    # Nothing but the CRDs of others.
    checks = report(server)
    assert states(checks) == {
        "api server": "ok",
        "clock": "ok",
        "definitions": "ok",
        "classes": "error",
        "permissions": "error",
        "controller": "error",
        "istiod": "error",
        "mesh root": "error",
        "envoy image": "ok",
        "proxies in sync": "ok",
    }
    assert "gatewayparameters.meshgw.dev" in checks["definitions"][0].message
    assert all(check.remedy for some in checks.values() for check in some if check.state is not State.OK)
    done = CliRunner().invoke(main, ["check", "--kubeconfig", str(server.kubeconfig), "-o", "json"])
    assert done.exit_code == 1
    assert {row["state"] for row in json.loads(done.output)} == {"ok", "error"}
    assert "istiod" in {row["name"] for row in json.loads(done.output)}
    done = CliRunner().invoke(main, ["check", "--kubeconfig", str(server.kubeconfig), "-o", "json", "--no-mesh"])
    assert {"istiod", "mesh root"} & {row["name"] for row in json.loads(done.output)} == set()

    # The manifests alone: permissions are whole, and nobody has come to life.
    install(server)
    checks = report(server)
    assert [check.message for check in checks["permissions"] if check.state is not State.OK] == []
    assert {name for name, state in states(checks).items() if state != "ok"} == {
        "classes", "controller", "leader", "istiod", "mesh root"
    }  # fmt: skip
    assert states(checks)["classes"] == "warn"

    make_whole(server)
    assert set(states(report(server)).values()) == {"ok"}
    done = CliRunner().invoke(main, ["check", "--kubeconfig", str(server.kubeconfig)])
    assert (done.exit_code, "error" in done.output) == (0, False), done.output


def test_the_controller_may_ask_about_itself(whole: ApiServer, tmp_path: Path) -> None:
    """By SelfSubjectAccessReview; it may read all of this, and forward no ports."""
    server = whole
    own = server.account_kubeconfig("meshgw-system", "meshgw", tmp_path / "own")
    assert {name for name, state in states(report(server, own)).items() if state != "ok"} <= {"proxies in sync"}
    reviews = {
        (event["user"]["username"], event["objectRef"]["resource"])
        for event in server.audit()
        if event.get("objectRef", {}).get("apiGroup") == "authorization.k8s.io"
    }
    assert ("system:serviceaccount:meshgw-system:meshgw", "selfsubjectaccessreviews") in reviews


def test_nothing_passes_that_was_not_seen(whole: ApiServer, tmp_path: Path) -> None:
    server = whole
    server.create_namespace("nobody")
    server.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "x", "namespace": "nobody"}})
    nobody = server.account_kubeconfig("nobody", "x", tmp_path / "nobody")
    blind = states(report(server, nobody))
    assert {name for name, state in blind.items() if state == "ok"} == {"api server", "clock"}
    assert "error" not in blind.values()


def test_a_certificate_where_secrets_may_not_be_read_has_a_remedy_that_helps(whole: ApiServer) -> None:
    server = whole
    server.create_namespace("shop")
    listener = {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "cert"}]}}
    server.apply(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "edge", "namespace": "shop"},
            "spec": {"gatewayClassName": "meshgw", "listeners": [listener]},
        }
    )
    (warning,) = report(server)["permissions"]
    assert (warning.state, "secrets" in warning.message, "in shop" in warning.message) == (State.WARN, True, True)
    program, *arguments = shlex.split(warning.remedy)
    assert program == "kubectl"
    server.kubectl(*arguments)
    assert states(report(server))["permissions"] == "ok"
    everywhere = report(server, scope=Scope(cluster_wide_secrets=True))
    assert states(everywhere)["permissions"] == "error"


def test_what_breaks_is_named(whole: ApiServer) -> None:
    """A role that lost a rule, a class that is refused, a definition that is gone: the last test, as it stays so."""
    server = whole
    server.kubectl("patch", "clusterrole", "meshgw", "--type=json", "-p", '[{"op": "remove", "path": "/rules/0"}]')
    refused = {"type": "Accepted", "status": "False", "reason": "InvalidParameters", "message": "no such parameters",
               "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
    patch = json.dumps({"status": {"conditions": [refused]}})
    server.kubectl("patch", "gatewayclass", "meshgw", "--subresource=status", "--type=merge", "-p", patch)
    server.kubectl("delete", "crd", "referencegrants.gateway.networking.k8s.io", "udproutes.gateway.networking.k8s.io")
    checks = report(server)
    assert [check.state for check in checks["permissions"]] == [State.ERROR]
    assert "namespaces" in checks["permissions"][0].message
    assert [check.message for check in checks["classes"]] == ["meshgw: no such parameters"]
    (definition,) = checks["definitions"]
    assert (definition.state, definition.message) == (
        State.ERROR,
        "missing: referencegrants.gateway.networking.k8s.io",
    )


@pytest.mark.parametrize(
    ("seconds", "state"),
    [(0.0, State.OK), (-1.9, State.OK), (4.0, State.OK), (90.0, State.ERROR), (-90.0, State.ERROR)],
)
def test_clocks_that_differ(seconds: float, state: State) -> None:
    there = NOW + timedelta(seconds=seconds)
    assert judge_clock(NOW, there, NOW + timedelta(seconds=0.2)).state is state


def test_a_slow_answer_is_no_difference() -> None:
    assert judge_clock(NOW, NOW + timedelta(seconds=20), NOW + timedelta(seconds=40)).state is State.OK


def lease(seconds_ago: float, holder: str = "meshgw-1") -> dict[str, Any]:
    renewed = (NOW - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed}


@pytest.mark.parametrize(
    ("spec", "state", "said"),
    [
        (lease(2), State.OK, "meshgw-1"),
        (lease(60), State.ERROR, "60 s ago"),
        (lease(-30), State.ERROR, "30 s ahead"),
        (lease(2, ""), State.ERROR, "no replica"),
        ({}, State.ERROR, "no replica"),
    ],
)
def test_who_leads(spec: dict[str, Any], state: State, said: str) -> None:
    check = judge_leader(spec, NOW, "look")
    assert (check.state, said in check.message) == (state, True)


def root(begin: datetime, days: int) -> str:
    """A root that is valid for so long."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "cluster.local")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + timedelta(days=days))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("pem", "state", "said"),
    [
        (root(NOW, 3650), State.OK, "1 valid, until 2036-11-18"),
        (root(NOW, 3650) + root(NOW, 10), State.WARN, "2 valid, until 2026-12-01"),
        (root(NOW, 3650) + root(NOW - timedelta(days=9), 3), State.OK, "1 valid, until 2036-11-18"),
        (root(NOW - timedelta(days=9), 3), State.ERROR, "expired on 2026-11-15"),
        ("nothing", State.ERROR, "no certificate"),
    ],
    ids=["valid", "one ends soon", "one ended", "expired", "none"],
)
def test_roots_of_the_mesh(pem: str, state: State, said: str) -> None:
    check = judge_roots(pem, NOW)
    assert (check.state, said in check.message) == (state, True)


def pod(image: str, waiting: str = "") -> dict[str, Any]:
    status = {"image": image, "state": {"waiting": {"reason": waiting}} if waiting else {}}
    return {
        "metadata": {"name": "edge-0", "namespace": "shop"},
        "spec": {"containers": [{"image": image}]},
        "status": {"containerStatuses": [status]},
    }


def test_images_that_a_node_cannot_have() -> None:
    assert judge_images([]).message == "no proxies yet"
    assert judge_images([pod("envoy:1"), pod("envoy:2")]).message == "envoy:1, envoy:2"
    check = judge_images([pod("envoy:1"), pod("envoy:9", "ImagePullBackOff")])
    assert (check.state, check.message) == (State.ERROR, "shop/edge-0 cannot have envoy:9: ImagePullBackOff")
