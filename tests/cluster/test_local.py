from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import string
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.audit import read_audit
from tests.cluster.cluster import Cluster
from tests.cluster.images import COREDNS, ECHO, PAUSE
from tests.cluster.keeper import Plot
from tests.cluster.local import LocalCluster
from tests.cluster.namespaces import ROOT, locks
from tests.cluster.processes import wait_until
from tests.cluster.remains import left_of
from tests.rig.waiting import eventually

_ECHO = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: echo
        image: $image
        imagePullPolicy: Never
        args: [--port=8080]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  type: LoadBalancer
  selector: {app: echo}
  ports: [{port: 80, targetPort: 8080}]
"""


def _get(url: str) -> str:
    """Return what is at a URL, once kube-proxy leads there."""
    answers: list[str] = []

    def answers_now() -> bool:
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(url, timeout=5) as answer:
            answers.append(answer.read().decode())
        return bool(answers)

    wait_until(answers_now, what=f"{url} answers", within=15)
    return answers[0]


@pytest.fixture(scope="module")
def echo(cluster: Cluster) -> str:
    """The namespace of a running echo server."""
    space = cluster.create_namespace("echo-tests")
    cluster.kubectl(
        "-n", space, "apply", "--server-side", "-f", "-", stdin=string.Template(_ECHO).substitute(image=ECHO)
    )
    cluster.wait_deployed(space, "echo")
    return space


@pytest.mark.smoke
def test_pods_services_and_load_balancers_answer_here(cluster: Cluster, echo: str) -> None:
    (pod,) = cluster.get("-n", echo, "pods")["items"]
    service = cluster.get("-n", echo, "service", "echo")["spec"]["clusterIP"]
    for address, port in ((pod["status"]["podIP"], 8080), (service, 80), (cluster.load_balancer(echo, "echo"), 80)):
        here, there = cluster.reach(address, port)
        assert f"Hostname={pod['metadata']['name']}" in _get(f"http://{here}:{there}/")


@pytest.mark.smoke
def test_pods_reach_names_services_and_load_balancers(cluster: Cluster, echo: str) -> None:
    (pod,) = cluster.get("-n", echo, "pods")["items"]
    balancer = cluster.load_balancer(echo, "echo")
    for host in ("echo", f"echo.{echo}.svc.cluster.local", balancer):
        said = cluster.kubectl("-n", echo, "exec", "deploy/echo", "--", "/usr/local/bin/client", f"http://{host}/")
        assert f"Hostname={pod['metadata']['name']}" in said, host


def test_names_resolve_here(cluster: Cluster, echo: str) -> None:
    service = cluster.get("-n", echo, "service", "echo")["spec"]["clusterIP"]
    assert cluster.resolve(f"echo.{echo}.svc.cluster.local") == service
    with pytest.raises(LookupError):
        cluster.resolve(f"nobody.{echo}.svc.cluster.local")


async def test_pods_reach_what_the_tests_serve(cluster: Cluster, echo: str) -> None:
    callers = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(writer.get_extra_info("peername")[0])
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, cluster.host, 0)
    async with server:
        url = f"http://{cluster.host}:{server.sockets[0].getsockname()[1]}/"
        await asyncio.to_thread(cluster.kubectl, "-n", echo, "exec", "deploy/echo", "--", "/usr/local/bin/client", url)
    (pod,) = cluster.get("-n", echo, "pods")["items"]
    assert callers == [pod["status"]["podIP"]]


def test_logs_and_secrets_are_real(cluster: Cluster, echo: str) -> None:
    assert "Listening HTTP/1.1 on 8080" in cluster.kubectl("-n", echo, "logs", "deploy/echo")
    (pod,) = cluster.get("-n", echo, "pods")["items"]
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    mounted = Path(f"/proc/{_pid_of_server(cluster, pod)}/root{token}")
    assert mounted.read_text().count(".") == 2


def _pid_of_server(cluster: Cluster, pod: dict[str, object]) -> int:
    """Return the process id, as this machine numbers it, of the echo server in a pod."""
    name = pod["metadata"]["name"]  # type: ignore[index]
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environ = (folder / "environ").read_bytes()
                called = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if f"HOSTNAME={name}\0".encode() in environ and called.startswith(b"/usr/local/bin/server"):
                return int(folder.name)
    raise AssertionError("no such process")


def _balancer(cluster: Cluster, space: str, name: str) -> object:
    return cluster.get("-n", space, "service", name)["status"]["loadBalancer"]


def test_load_balancer_address_is_freed_and_given_again(cluster: Cluster, echo: str) -> None:
    def create(name: str) -> str:
        spec = {"type": "LoadBalancer", "ports": [{"port": 80}]}
        meta = {"name": name, "namespace": echo}
        cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
        return cluster.load_balancer(echo, name)

    first, second = create("one"), create("two")
    assert len({first, second, cluster.load_balancer(echo, "echo")}) == 3
    cluster.kubectl("-n", echo, "delete", "service", "one")
    assert create("three") == first
    patch = '{"spec":{"type":"ClusterIP"}}'
    cluster.kubectl("-n", echo, "patch", "service", "two", "--type=merge", "-p", patch)
    wait_until(lambda: not _balancer(cluster, echo, "two"), what="the address is taken back", within=10)
    cluster.kubectl("-n", echo, "delete", "service", "two", "three")


def test_requests_are_in_the_audit_log(local_cluster: LocalCluster, echo: str) -> None:
    users = {event["user"]["username"] for event in read_audit(local_cluster.folder / "audit.log")}
    assert {"admin", f"system:node:{local_cluster.plot.name}", "system:serviceaccount:kube-system:coredns"} <= users


def test_clusters_coexist(local_cluster: LocalCluster, start_cluster: Callable[..., LocalCluster]) -> None:
    other = start_cluster([PAUSE, COREDNS])
    assert other.plot != local_cluster.plot
    assert other.resolve("kubernetes.default.svc.cluster.local") == other.plot.api
    assert local_cluster.resolve("kubernetes.default.svc.cluster.local") == local_cluster.plot.api
    other.create_namespace("only-here")
    assert "only-here" not in local_cluster.kubectl("get", "namespaces")


def test_node_programs_can_be_killed_and_restarted(start_cluster: Callable[..., LocalCluster]) -> None:
    own = start_cluster([PAUSE, COREDNS])
    own.signal("kube-apiserver", signal.SIGKILL)
    wait_until(lambda: "kube-apiserver" not in own.programs(), what="the server has ended", within=10)
    assert not own.is_ready()
    own.restart("kube-apiserver")
    own.kubectl("wait", "node", own.plot.name, "--for=condition=Ready", "--timeout=60s")


async def test_nothing_is_left_when_the_first_process_ends(start_cluster: Callable[..., LocalCluster]) -> None:
    own = await asyncio.to_thread(start_cluster, [PAUSE, COREDNS])
    plot, folder, pid = own.plot, own.folder, own.pid
    held = await asyncio.to_thread(left_of, plot, folder)
    assert str(pid) in held
    assert plot.interface in held
    assert len(held) > 10, "programs, shims and pods, cgroups, the folder"
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not left_of(plot, folder), what="nothing is left", within=20)


_RUN = """
import sys, time
from tests.cluster.images import COREDNS, PAUSE
from tests.cluster.local import run_local_cluster
with run_local_cluster([PAUSE, COREDNS]) as cluster:
    print(cluster.plot.number, cluster.folder, flush=True)
    time.sleep(600)
"""


async def _crash(*, keeper_too: bool) -> tuple[Plot, Path]:
    """Kill a run of tests that has a cluster, and return what it had."""
    run = await asyncio.create_subprocess_exec(sys.executable, "-c", _RUN, stdout=subprocess.PIPE, cwd=ROOT)
    assert run.stdout is not None
    try:
        async with asyncio.timeout(90):
            number, folder = (await run.stdout.readline()).decode().split()
        if keeper_too:
            os.kill(json.loads((locks() / f"{number}.lock").read_text())["keeper"], signal.SIGKILL)
    finally:
        run.kill()
        await run.wait()
    return Plot(int(number)), Path(folder)


@pytest.mark.usefixtures("local_cluster")
async def test_nothing_is_left_when_the_tests_crash() -> None:
    plot, folder = await _crash(keeper_too=False)
    await eventually(lambda: not left_of(plot, folder), what="nothing is left", within=20)


async def test_next_cluster_removes_what_a_killed_keeper_left(start_cluster: Callable[..., LocalCluster]) -> None:
    plot, folder = await _crash(keeper_too=True)

    def no_process() -> bool:
        return not any(entry.isdigit() for entry in left_of(plot, folder))

    await eventually(no_process, what="no process is left", within=20)
    own = await asyncio.to_thread(start_cluster, [PAUSE, COREDNS])
    assert own.plot == plot
    assert not folder.exists()
