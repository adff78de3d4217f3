"""The node proxy: captures the pods of one node that are in the mesh, and runs an Envoy in each of them.

It follows the API server for which pods there are, and istiod for everything else: where connections go, who is whom,
and certificates, each for the ServiceAccount of the pod that it is for. It knows nothing of meshgw's doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc.aio
import msgspec
import structlog

from meshgw.emit.resource import Resource
from meshgw.identity.certificate import WorkloadCertificate
from meshgw.identity.istiod import IstiodClient
from meshgw.identity.rotate import Rotator
from meshgw.identity.spiffe import SpiffeId
from meshgw.kube.client import Client
from meshgw.kube.errors import ApiError, UnreachableError
from meshgw.standalone import launch
from meshgw.xds.cache import Cache
from meshgw.xds.proxy import Peer, Refused
from meshgw.xds.server import AdsServer
from tests.mesh.bootstrap import bootstrap
from tests.mesh.capture import CaptureError, entering, find_namespace, redirect, release
from tests.mesh.discovery import follow
from tests.mesh.document import secrets
from tests.mesh.inbound import inbound
from tests.mesh.outbound import Mesh, outbound
from tests.mesh.pods import CAPTURED, Objects, Pod, enlisted
from tests.mesh.workload import Service, Workload, read
from tests.rig.envoy import Admin, envoy_path
from tests.rig.waiting import eventually

NAMESPACE: Final = "istio-system"
ACCOUNT: Final = "ztunnel"
"""As whom it follows istiod."""

_CLUSTER_ID: Final = "Kubernetes"
_PAUSE: Final = 0.5
_LIVE_WITHIN: Final = 30.0
_MERGE: Final = "application/merge-patch+json"
_T = TypeVar("_T")
_Resources = dict[tuple[str, str], Resource]

_log = structlog.get_logger(__name__)


class NodeProxy:
    """The node proxy of node `node`; `istiod` is an address, `folder` holds sockets, configurations and `log`."""

    def __init__(self, client: Client, *, node: str, istiod: str, folder: Path) -> None:
        self._client, self._node, self._istiod, self._folder = client, node, istiod, folder
        self._socket = folder / "discovery.sock"
        self._server = AdsServer(Cache(), authorize=self._authorize, listen=f"unix:{self._socket}")
        source = IstiodClient(istiod, roots=self._roots, token=self._token, cluster_id=_CLUSTER_ID)
        self._rotator = Rotator(source, self._publish_certificate)
        self._pods = Objects(client, "/api/v1/pods", self._tell, fieldSelector=f"spec.nodeName={node}")
        self._namespaces = Objects(client, "/api/v1/namespaces", self._tell)
        self._news = asyncio.Event()
        self._told: dict[str, Service | Workload] = {}
        self._outbound: _Resources = {}
        self._captured: dict[Pod, SpiffeId] = {}
        self._serving: dict[str, Pod] = {}
        self._ending = False

    async def run(self, ended: asyncio.Event) -> None:
        """Capture pods until `ended` is set, then let all go."""
        await self._make_account()
        async with asyncio.TaskGroup() as tasks:
            parts = (self._server.run, self._rotator.run, self._pods.run, self._namespaces.run, self._follow)
            background = [tasks.create_task(part()) for part in parts]
            keeping = tasks.create_task(self._keep_all())
            await ended.wait()
            self._ending = True
            await _cancel(keeping)
            for task in background:
                task.cancel()

    # --- What is known -----------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Wake everybody who waits for something."""
        self._news.set()
        self._news = asyncio.Event()

    async def _until(self, check: Callable[[], _T | None]) -> _T:
        """Return the first result that is not None."""
        while (found := check()) is None:
            await self._news.wait()
        return found

    async def _follow(self) -> None:
        """Have what istiod tells, all the time."""
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError, ApiError, UnreachableError, OSError):
                token = await self._request_token(NAMESPACE, ACCOUNT)
                stream = follow(
                    self._istiod,
                    roots=await self._roots(),
                    token=token,
                    namespace=NAMESPACE,
                    account=ACCOUNT,
                    node=self._node,
                )
                async with contextlib.aclosing(stream) as responses:
                    told: dict[str, Service | Workload] = {}
                    async for response in responses:
                        told.update({row.name: read(row.resource.value) for row in response.resources})
                        for name in response.removed_resources:
                            told.pop(name, None)
                        self._learn(told)
            await asyncio.sleep(_PAUSE)

    def _learn(self, told: dict[str, Service | Workload]) -> None:
        self._told = told
        now = _by_key(outbound(Mesh(told.values())))
        changes = {**dict.fromkeys(self._outbound.keys() - now.keys()), **now}
        self._outbound = now
        for uid in self._serving:
            self._server.publish(uid, changes)
        self._tell()

    def _trust_domain(self, pod: Pod) -> str | None:
        found = self._told.get(f"{_CLUSTER_ID}//Pod/{pod.namespace}/{pod.name}")
        return found.trust_domain if isinstance(found, Workload) and set(found.addresses) & set(pod.addresses) else None

    def _wanted(self) -> set[Pod]:
        if not (self._pods.known and self._namespaces.known):
            return set(self._captured)
        spaces = {name: row for (_, name), row in self._namespaces.rows.items()}
        pods = (enlisted(row, spaces[space]) for (space, _), row in self._pods.rows.items() if space in spaces)
        return {pod for pod in pods if pod is not None}

    # --- Certificates ------------------------------------------------------------------------------------------------

    async def _make_account(self) -> None:
        metadata = {"name": ACCOUNT, "namespace": NAMESPACE}
        body = msgspec.json.encode({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        try:
            await self._client.request("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", body=body)
        except ApiError as error:
            if error.status != 409:
                raise

    async def _roots(self) -> bytes:
        path = f"/api/v1/namespaces/{NAMESPACE}/configmaps/istio-ca-root-cert"
        try:
            bundle: str = msgspec.json.decode(await self._client.request("GET", path))["data"]["root-cert.pem"]
        except ApiError as error:
            raise OSError(str(error)) from None
        return bundle.encode()

    async def _token(self, identity: SpiffeId) -> str:
        """Return a token that is bound to a pod of this identity."""
        pod = next((pod for pod, who in self._captured.items() if who == identity), None)
        if pod is None:
            raise OSError("the pod is gone")
        try:
            return await self._request_token(pod.namespace, pod.account, pod)
        except ApiError as error:
            raise OSError(str(error)) from None

    async def _request_token(self, namespace: str, account: str, pod: Pod | None = None) -> str:
        spec: dict[str, Any] = {"audiences": ["istio-ca"], "expirationSeconds": 3600}
        if pod is not None:
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await self._client.request("POST", path, body=msgspec.json.encode(body))
        token: str = msgspec.json.decode(answer)["status"]["token"]
        return token

    def _publish_certificate(self, certificate: WorkloadCertificate) -> None:
        for uid, pod in self._serving.items():
            if self._captured.get(pod) == certificate.identity:
                self._server.publish(uid, {**_secrets(certificate)})
        asyncio.get_running_loop().call_soon(self._tell)  # once the rotator has it

    # --- Pods --------------------------------------------------------------------------------------------------------

    async def _keep_all(self) -> None:
        """Have a task for every pod that is to be captured."""
        kept: dict[Pod, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                wanted = self._wanted()
                for pod in kept.keys() - wanted:
                    kept.pop(pod).cancel()
                for pod in wanted - kept.keys():
                    kept[pod] = tasks.create_task(self._keep(pod), name=str(pod))
                await self._news.wait()

    async def _keep(self, pod: Pod) -> None:
        """Keep one pod captured; what goes wrong is tried again."""
        trust_domain = await self._until(lambda: self._trust_domain(pod))
        identity = SpiffeId(trust_domain=trust_domain, namespace=pod.namespace, service_account=pod.account)
        self._captured[pod] = identity
        self._rotator.add(identity)
        try:
            while True:
                try:
                    await self._capture(pod, identity)
                except (CaptureError, ApiError, OSError, AssertionError) as error:
                    _log.warning("not captured", pod=str(pod), error=str(error))
                await asyncio.sleep(_PAUSE)
        finally:
            del self._captured[pod]
            if identity not in self._captured.values():
                self._rotator.remove(identity)

    async def _capture(self, pod: Pod, identity: SpiffeId) -> None:
        """Capture a pod until its Envoy ends, which is an error; when cancelled, let it go if it is still there."""
        namespace = await asyncio.to_thread(find_namespace, pod.uid)
        certificate = await self._until(lambda: self._rotator.certificate(identity))
        own = _by_key(inbound(pod.addresses, identity.trust_domain))
        self._server.publish(pod.uid, {**self._outbound, **own, **_secrets(certificate)}, ready=True)
        self._serving[pod.uid] = pod
        process = await self._start_envoy(pod, namespace)
        try:
            admin = Admin(self._folder / f"{pod.uid}.sock")
            await _wait_live(process, admin)
            await redirect(namespace)
            await self._annotate(pod, "enabled")
            _log.info("captured", pod=str(pod), identity=str(identity))
            raise CaptureError(f"Envoy ended with {await process.wait()}")
        finally:
            if self._ending:
                with contextlib.suppress(CaptureError, ApiError, OSError):
                    await self._annotate(pod, None)
                    await release(namespace)
            del self._serving[pod.uid]
            self._server.forget(pod.uid)
            if process.returncode is None:
                process.kill()
                await process.wait()
            _log.info("released", pod=str(pod))

    async def _start_envoy(self, pod: Pod, namespace: Path) -> asyncio.subprocess.Process:
        path, admin = self._folder / f"{pod.uid}.json", self._folder / f"{pod.uid}.sock"
        admin.unlink(missing_ok=True)
        path.write_text(json.dumps(bootstrap(pod.uid, discovery=self._socket, admin=admin)))
        quiet = ["-l", "warning", "--component-log-level", "misc:error", "--file-flush-interval-msec", "100"]
        envoy = [str(envoy_path()), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", *quiet]
        with (self._folder / f"{pod.namespace}.{pod.name}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *launch.command(entering(namespace, envoy)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def _annotate(self, pod: Pod, value: str | None) -> None:
        """Say that a pod is captured, which makes istiod tell others to use HBONE; it may be gone meanwhile."""
        body = msgspec.json.encode({"metadata": {"uid": pod.uid, "annotations": {CAPTURED: value}}})
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
        await self._client.request("PATCH", path, body=body, content_type=_MERGE)

    def _authorize(self, _peer: Peer, node_id: str, _metadata: Mapping[str, object]) -> str | Refused:
        return node_id if node_id in self._serving else Refused("no pod of this node")


async def _wait_live(process: asyncio.subprocess.Process, admin: Admin) -> None:
    async def is_live() -> bool:
        if process.returncode is not None:
            raise CaptureError(f"Envoy ended with {process.returncode}")
        return admin.path.exists() and await admin.ready()

    await eventually(is_live, what="Envoy is live", within=_LIVE_WITHIN, interval=0.1)


async def _cancel(task: asyncio.Task[None]) -> None:
    """End a task, and return once it has."""
    task.cancel()
    await asyncio.wait([task])


def _by_key(resources: Iterable[Resource]) -> _Resources:
    return {(resource.type_url, resource.name): resource for resource in resources}


def _secrets(certificate: WorkloadCertificate) -> _Resources:
    chain, roots = certificate.chain_pem.decode(), certificate.roots_pem.decode()
    return _by_key(secrets(chain, certificate.private_key.reveal().decode(), roots))
