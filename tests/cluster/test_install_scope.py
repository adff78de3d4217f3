"""The chart for some namespaces only, installed by Helm: what is served, what is left alone, what may be read."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from meshgw.install.rules import HOME, NAME
from tests.cluster.access import KubectlError
from tests.cluster.apiserver import ApiServer
from tests.cluster.controllers import Controller, condition
from tests.cluster.programs import executable
from tests.rig.certs import authority
from tests.rig.waiting import eventually

CHARTS = Path(__file__).parents[2] / "manifests" / "charts"
PROGRAMS = ("helm",)
SERVED = {"Accepted": "Accepted", "ResolvedRefs": "ResolvedRefs"}
VERBS = ("get", "list", "watch")
ACCOUNT = f"system:serviceaccount:{HOME}:{NAME}"


def helm(server: ApiServer, *arguments: str | Path) -> str:
    """What `helm` says as a person runs it."""
    command = [executable("helm"), *arguments, "--kubeconfig", server.kubeconfig, "--namespace", HOME]
    environ = {**os.environ, "HOME": str(server.folder)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def install(server: ApiServer, *values: str) -> str:
    """Install both charts, or change the values of what is installed; return what Helm says of the controller's."""
    options = [part for value in values for part in ("--set", value)]
    helm(server, "upgrade", "--install", "meshgw-crds", CHARTS / "meshgw-crds")
    return helm(server, "upgrade", "--install", "meshgw", CHARTS / "meshgw", "--reset-values", *options)


@asynccontextmanager
async def run_installed(server: ApiServer, folder: Path) -> AsyncIterator[Controller]:
    """Run the controller with the arguments of the installed Deployment, as its ServiceAccount."""
    deployment = server.get("-n", HOME, "deployment", NAME)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    verb, *arguments = container["args"]
    assert verb == "controller"
    kubeconfig = server.account_kubeconfig(HOME, NAME, folder / "installed.conf")
    controller = Controller(server, folder, HOME)
    own = ("--kubeconfig", str(kubeconfig), "--controller-name", "meshgw.dev/gateway-controller")
    await controller.start(*own, *arguments)
    try:
        await controller.ready()
        yield controller
    finally:
        assert await controller.end() == 0, controller.log()[-4000:]


def gateway(namespace: str, certificate: dict[str, str]) -> dict[str, Any]:
    tls = {"certificateRefs": [certificate]}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "edge", "namespace": namespace},
        "spec": {
            "gatewayClassName": "meshgw",
            "listeners": [{"name": "https", "port": 443, "protocol": "HTTPS", "tls": tls}],
        },
    }


def grant(namespace: str, to: str) -> dict[str, Any]:
    """What lets Gateways of another namespace use a namespace's Secrets, as far as the Gateway API goes."""
    group = "gateway.networking.k8s.io"
    source = {"group": group, "kind": "Gateway", "namespace": to}
    return {
        "apiVersion": f"{group}/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "secrets", "namespace": namespace},
        "spec": {"from": [source], "to": [{"group": "", "kind": "Secret"}]},
    }


def states(server: ApiServer, namespace: str) -> dict[str, str]:
    """Reasons of the Gateway's conditions, and of its listener's references."""
    found = server.get("-n", namespace, "gateway", "edge")
    listeners = found.get("status", {}).get("listeners", ())
    return {
        "Accepted": condition(found, "Accepted")[1],
        "ResolvedRefs": condition({"status": listeners[0]}, "ResolvedRefs")[1] if listeners else "",
    }


def deployments(server: ApiServer) -> set[str]:
    found = server.get("-A", "deployments", "-l", "gateway.networking.k8s.io/gateway-name=edge")
    return {entry["metadata"]["namespace"] for entry in found["items"]}


def is_(check: Callable[[], object], wanted: object) -> Callable[[], bool]:
    def holds() -> bool:
        found = check()
        assert found == wanted
        return True

    return holds


def may(server: ApiServer, verb: str, resource: str, namespace: str) -> bool:
    try:
        scope = ("-n", namespace) if namespace else ("-A",)
        return server.kubectl("auth", "can-i", verb, resource, f"--as={ACCOUNT}", *scope).strip() == "yes"
    except KubectlError:  # the exit code of "no"
        return False


def asked(server: ApiServer) -> list[dict[str, Any]]:
    return [event for event in server.audit() if event["user"]["username"] == ACCOUNT and "objectRef" in event]


def refused(server: ApiServer) -> set[tuple[str, str]]:
    """Resources and namespaces that the controller asked for and may not have."""
    events = (event for event in asked(server) if event.get("responseStatus", {}).get("code") == 403)
    return {(event["objectRef"]["resource"], event["objectRef"].get("namespace", "")) for event in events}


async def test_an_installation_for_some_namespaces(start_apiserver: Callable[..., ApiServer], tmp_path: Path) -> None:
    """Two namespaces are served with a role in each; then all with a label, as labels come. The rest stays as it is."""
    server = start_apiserver(seeded=True)
    for namespace in ("a", "b", "c", "d", "istio-system", HOME):
        server.create_namespace(namespace)
    leaf = authority().issue("a.example.com")
    for namespace in ("a", "c"):
        server.apply(leaf.secret("certificate", namespace))
    server.apply(grant("a", "b"), grant("c", "d"))
    there = {"name": "certificate"}
    server.apply(gateway("a", there), gateway("b", {**there, "namespace": "a"}))
    server.apply(gateway("c", there), gateway("d", {**there, "namespace": "c"}))

    said = install(server, "namespaces={a,b}")
    assert "meshgw check --namespaces a,b" in said
    async with run_installed(server, tmp_path):
        for namespace in ("a", "b"):
            await eventually(is_(partial(states, server, namespace), SERVED), what=namespace, within=20)
        await eventually(is_(partial(deployments, server), {"a", "b"}), what="proxies", within=20)
        for namespace in ("c", "d"):
            assert states(server, namespace) == {"Accepted": "Pending", "ResolvedRefs": ""}
    assert refused(server) == set()
    places = {event["objectRef"].get("namespace", "") for event in asked(server)}
    assert places == {"", "a", "b", HOME, "istio-system"}
    secrets = {event["objectRef"].get("namespace", "") for event in asked(server) if _is_secret(event)}
    assert secrets == {"a", "b", HOME}
    assert [may(server, verb, "secrets", "a") for verb in VERBS] == [False, True, True]
    for namespace in ("", "c", "d", "istio-system", "kube-system"):
        assert [may(server, verb, "secrets", namespace) for verb in VERBS] == [False] * 3, namespace
    assert not may(server, "list", "secrets", HOME)

    before = len(server.audit())
    said = install(server, "namespaceSelector=edge=meshgw", "secretNamespaces={c}")
    assert "namespaces with labels `edge=meshgw`" in said
    server.kubectl("label", "namespace", "c", "edge=meshgw")
    async with run_installed(server, tmp_path):
        await eventually(is_(partial(states, server, "c"), SERVED), what="c is served", within=20)
        assert states(server, "d")["Accepted"] == "Pending"
        server.kubectl("label", "namespace", "d", "edge=meshgw")
        await eventually(is_(partial(states, server, "d"), SERVED), what="d is served once it has the label", within=20)
        await eventually(is_(partial(deployments, server), {"a", "b", "c", "d"}), what="proxies", within=20)
    since = [event for event in server.audit()[before:] if event["user"]["username"] == ACCOUNT]
    writes = {e["objectRef"].get("namespace") for e in since if e["verb"] in {"create", "patch", "update", "delete"}}
    assert writes <= {None, "c", "d", HOME}
    # Nobody lets it read Secrets in d: it was asked for, as a Gateway is there, and has an effect on nothing else.
    assert refused(server) == {("secrets", "d")}

    said = install(server)
    assert "meshgw check\n" in said
    (command,) = (part for part in said.split("kubectl ") if part.startswith("create rolebinding"))
    assert not may(server, "list", "secrets", "b")
    server.kubectl(*command.replace("\\\n", " ").replace("NAMESPACE", "b").split())
    assert may(server, "list", "secrets", "b")
    assert "rolebinding" not in install(server, "clusterWideSecrets=true")
    assert may(server, "list", "secrets", "")


def _is_secret(event: dict[str, Any]) -> bool:
    return bool(event["objectRef"]["resource"] == "secrets")
