from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.access import Access, KubectlError
from tests.cluster.apiserver import ApiServer
from tests.rig.waiting import eventually


def test_definitions_are_served(apiserver: ApiServer) -> None:
    names = apiserver.kubectl("get", "crd", "-o", "name")
    for plural in ("gateways.gateway.networking.k8s.io", "listenersets.gateway.networking.k8s.io"):
        assert f"/{plural}" in names
    assert "/authorizationpolicies.security.istio.io" in names
    assert apiserver.get("gateways.gateway.networking.k8s.io", "-A")["items"] == []


def test_account_may_do_what_its_roles_say(apiserver: ApiServer, tmp_path: Path) -> None:
    space = apiserver.create_namespace("accounts")
    apiserver.kubectl("-n", space, "create", "serviceaccount", "reader")
    reader = Access(apiserver.account_kubeconfig(space, "reader", tmp_path / "reader.conf"))
    with pytest.raises(KubectlError, match="forbidden"):
        reader.kubectl("-n", space, "get", "configmaps")
    apiserver.kubectl("-n", space, "create", "role", "reader", "--verb=list", "--resource=configmaps")
    apiserver.kubectl(
        "-n", space, "create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={space}:reader"
    )
    assert reader.get("-n", space, "configmaps")["items"] == []
    assert (tmp_path / "reader.conf").stat().st_mode & 0o077 == 0


def test_requests_are_in_the_audit_log(apiserver: ApiServer, tmp_path: Path) -> None:
    jane = Access(apiserver.user_kubeconfig("jane", tmp_path / "jane.conf", groups=["auditors"]))
    assert jane.request("GET", "/api/v1/namespaces/default/secrets")[0] == 403
    (event,) = [event for event in apiserver.audit() if event["user"]["username"] == "jane"]
    assert event["user"]["groups"] == ["auditors", "system:authenticated"]
    assert (event["verb"], event["objectRef"]["resource"]) == ("list", "secrets")
    assert event["annotations"]["authorization.k8s.io/decision"] == "forbid"


def test_token_is_for_its_audience(apiserver: ApiServer) -> None:
    space = apiserver.create_namespace("tokens")
    apiserver.kubectl("-n", space, "create", "serviceaccount", "gateway")
    token = apiserver.token(space, "gateway", audience="istio-ca")

    def review(audience: str) -> bool:
        spec = {"token": token, "audiences": [audience]}
        document = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        status, body = apiserver.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", document)
        assert status == 201
        return bool(json.loads(body)["status"].get("authenticated"))

    assert review("istio-ca")
    assert not review("meshgw")


def test_server_comes_back_with_its_data(start_apiserver: Callable[..., ApiServer]) -> None:
    server = start_apiserver()
    server.create_namespace("kept")
    server.server.kill()
    with pytest.raises(ConnectionError):
        server.request("GET", "/readyz")
    server.start()
    assert server.get("namespace", "kept")["metadata"]["name"] == "kept"
    server.server.freeze()
    with pytest.raises(TimeoutError):
        server.request("GET", "/readyz", within=0.2)
    server.server.thaw()
    assert server.is_ready()


def test_old_revisions_are_gone_after_compaction(start_apiserver: Callable[..., ApiServer]) -> None:
    server = start_apiserver("--watch-cache=false")
    old = json.loads(server.request("GET", "/api/v1/namespaces")[1])["metadata"]["resourceVersion"]
    for name in ("later", "later-still"):  # etcd keeps the newest revision
        server.create_namespace(name)
    assert server.compact() > int(old)
    status, body = server.request("GET", f"/api/v1/namespaces?watch=true&resourceVersion={old}&timeoutSeconds=1")
    event = json.loads(body)
    assert (status, event["type"], event["object"]["code"]) == (200, "ERROR", 410)


def test_controllers_make_default_accounts_and_remove_namespaces(start_apiserver: Callable[..., ApiServer]) -> None:
    server = start_apiserver()
    server.start_controllers()
    space = server.create_namespace("passing")
    server.kubectl("wait", "--for=create", "-n", space, "serviceaccount/default", "configmap/kube-root-ca.crt")
    server.kubectl("delete", "namespace", space, "--timeout=30s")
    assert server.request("GET", f"/api/v1/namespaces/{space}")[0] == 404


_RUN = """
import sys, time
from tests.cluster.apiserver import run_apiserver
with run_apiserver() as server:
    print(server.etcd.pid, server.server.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.apiserver
async def test_nothing_survives_a_crash_of_the_tests(apiserver: ApiServer, tmp_path: Path) -> None:
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _RUN, stdout=subprocess.PIPE, env=environ, cwd=Path(__file__).parents[2]
    )
    assert run.stdout is not None
    try:
        async with asyncio.timeout(60):
            pids = [int(word) for word in (await run.stdout.readline()).split()]
    finally:
        run.send_signal(signal.SIGKILL)
        await run.wait()
    assert len(pids) == 2
    await eventually(lambda: not any(_lives(pid) for pid in pids), what="the servers end")


def _lives(pid: int) -> bool:
    try:
        return "kube" in Path(f"/proc/{pid}/cmdline").read_text() or "etcd" in Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return False
