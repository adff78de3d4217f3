"""An API server that merges what is applied to it, with the writer of proxies' objects before it."""

from __future__ import annotations

from typing import Any

import msgspec

from meshgw.api.meta import Key, ObjectRef
from meshgw.emit.tables import ProxyObject
from meshgw.ir.proxy import Deploying, ProxyPlan
from meshgw.kube.seen import Observed, Seen
from meshgw.write.objects import ObjectWriter
from meshgw.write.workload import PROXY_KINDS, OwnedObject, Problem
from tests.unit.write.parts import FakeClient, FakeTimer, Request, hold_while, refusal

GATEWAY = Key("shop", "gw")
KINDS = {kind.name: kind for kind in PROXY_KINDS}
CONTROLLER = "meshgw.dev/this"
CONFIG_MAP = ObjectRef("ConfigMap", "shop", "gw-c")
DEPLOYMENT = ObjectRef("Deployment", "shop", "gw-c")
SERVICE = ObjectRef("Service", "shop", "gw-c")
ACCOUNT = ObjectRef("ServiceAccount", "shop", "gw-c")
PATH = "/api/v1/namespaces/shop/configmaps/gw-c"
APPLY = f"PATCH {PATH}"
WORKLOAD = "/apis/apps/v1/namespaces/shop/deployments/gw-c"
APPLY_WORKLOAD = f"PATCH {WORKLOAD}"


def body(uid: str = "g1", ref: ObjectRef = CONFIG_MAP, **spec: Any) -> dict[str, Any]:
    owner = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "gw", "uid": uid}
    labels = {"app.kubernetes.io/managed-by": "meshgw"}
    metadata = {"name": ref.name, "namespace": ref.namespace, "labels": labels, "ownerReferences": [owner]}
    return {"apiVersion": "apps/v1", "kind": ref.kind, "metadata": metadata, "spec": spec or {"replicas": 2}}


def unowned(ref: ObjectRef = CONFIG_MAP) -> dict[str, Any]:
    """Return an object of that name as somebody else makes it."""
    return body(ref=ref) | {"metadata": {"name": ref.name, "namespace": ref.namespace}}


def plan(deploying: Deploying = Deploying.MANAGED, uid: str = "g1") -> ProxyPlan:
    return ProxyPlan(gateway=GATEWAY, name="gw-c", deploying=deploying, uid=uid)


def marked(written: dict[str, Any], controller: str = CONTROLLER) -> dict[str, Any]:
    return written | {"metadata": written["metadata"] | {"annotations": {"meshgw.dev/controller": controller}}}


class Cluster:
    """Objects of an API server; what it shows is up to the test."""

    def __init__(self, home: str = "here") -> None:
        self.objects: dict[ObjectRef, dict[str, Any]] = {}
        self.version = 0
        self.client = FakeClient(self.answer)
        self.timer = FakeTimer()
        self.leads = True
        self.reports: list[tuple[Key, list[str]]] = []
        self.refusals: list[Exception] = []
        self.writer = ObjectWriter(
            self.client,  # type: ignore[arg-type] - it stands for one
            controller=CONTROLLER,
            home=home,
            hold=hold_while(lambda: self.leads),
            report=self.report,
            timer=self.timer,
        )

    def report(self, gateway: Key, problems: Any) -> None:
        assert all(isinstance(problem, Problem) for problem in problems)
        self.reports.append((gateway, [problem.reason for problem in problems]))

    def put(self, written: dict[str, Any], **metadata: Any) -> ObjectRef:
        self.version += 1
        ref = ObjectRef(written["kind"], written["metadata"]["namespace"], written["metadata"]["name"])
        before = self.objects.get(ref, {"metadata": {"uid": f"u{self.version}"}, "status": {}})
        merged = {**before["metadata"], **written["metadata"], "resourceVersion": str(self.version), **metadata}
        self.objects[ref] = {**before, **written, "metadata": merged}
        return ref

    def show(self, ref: ObjectRef = CONFIG_MAP) -> None:
        written = self.objects.get(ref)
        key = Key(ref.namespace, ref.name)
        if written is None:
            seen = Seen(key, None, None)
        else:
            read = msgspec.json.decode(msgspec.json.encode(written), type=OwnedObject)
            metadata = written["metadata"]
            observed = Observed(uid=metadata["uid"], resource_version=metadata["resourceVersion"], generation=1)
            seen = Seen(key, read, observed)
        self.writer.observe(KINDS[ref.kind], [seen])

    def answer(self, request: Request) -> Any:
        ref = next((ref for ref in self.objects if request.path.endswith(f"/{ref.kind.lower()}s/{ref.name}")), None)
        if request.method == "GET":
            return self.objects[ref] if ref is not None else refusal(404, "NotFound")
        if self.refusals:
            return self.refusals.pop(0)
        if request.method == "DELETE":
            assert ref is not None
            metadata = self.objects[ref]["metadata"]
            wanted = request.body["preconditions"]
            if wanted != {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}:
                return refusal(409, "Conflict")
            del self.objects[ref]
            return {}
        assert request.query == {"fieldManager": "meshgw", "force": "true", "fieldValidation": "Strict"}
        assert request.content_type == "application/apply-patch+yaml"
        before = self.objects.get(ref) if ref is not None else None
        wanted = request.body
        if before is None and "uid" in wanted["metadata"]:
            return refusal(409, "Conflict")
        if before is not None and wanted["metadata"].pop("resourceVersion", None) is not None:
            return refusal(409, "Conflict")
        if before is not None and wanted["metadata"].pop("uid") != before["metadata"]["uid"]:
            return refusal(422, "Invalid", 'metadata.uid: Invalid value: "u1": field is immutable')
        if (
            before is None
            or any(before[name] != wanted[name] for name in ("spec",))
            or any(before["metadata"].get(name) != value for name, value in wanted["metadata"].items())
        ):
            ref = self.put(wanted)
        assert ref is not None
        return self.objects[ref]

    def want(self, written: dict[str, Any] | None, ref: ObjectRef = CONFIG_MAP, **plans: Any) -> None:
        row = None
        if written is not None:
            row = ProxyObject(gateway=GATEWAY, api_version="apps/v1", body=msgspec.json.encode(written))
        self.writer.desire({ref: row}, {GATEWAY: plans["plan"]} if "plan" in plans else {})

    async def bring(self, written: dict[str, Any] | None, ref: ObjectRef = CONFIG_MAP, **plans: Any) -> None:
        """Want something, and let the writer do what it has to."""
        self.want(written, ref, **plans)
        await self.timer.advance(2)

    def successor(self) -> Cluster:
        """Return the same objects with another writer, which knows nothing yet."""
        found = Cluster()
        found.objects, found.version = self.objects, self.version
        return found

    async def give_account(self) -> None:
        await self.bring(body(ref=ACCOUNT), ACCOUNT, plan=plan())
        self.show(ACCOUNT)

    @property
    def writes(self) -> list[str]:
        return [made for made in self.client.made if not made.startswith("GET")]
