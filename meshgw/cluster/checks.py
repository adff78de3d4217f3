"""Is the installation whole? One line for each thing that has to be right, with what to do where it is not.

A check asks the API server and judges the answer; what it may not ask is a warning, never a pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import msgspec
from cryptography import x509

from meshgw.cluster.identity import ROOTS_CONFIG_MAP, ROOTS_KEY
from meshgw.cluster.proxies import REFUSED, collect
from meshgw.install.rules import NAME, Grant, Reach, Scope, grants, rules
from meshgw.kube.client import ApiError, Client, UnreachableError, resource_path
from meshgw.names import CONTROLLER_NAME
from meshgw.pipeline import list_kinds

Document = dict[str, Any]

AT_ONCE: Final = 16
"""Requests in flight."""
SKEW: Final = 5.0
"""Seconds that clocks may differ before certificates and tokens are at risk."""


class State(StrEnum):
    """How a check ended; a warning is something that works, or that could not be seen."""

    OK = "ok"
    WARN = "warn"
    ERROR = "error"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report."""

    name: str
    state: State
    message: str
    remedy: str = ""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked about: the installation's scope, whether there is an Istio, its revision ("" is the default)."""

    scope: Scope = Scope()
    mesh: bool = True
    revision: str = ""


def ok(name: str, message: str) -> Check:
    """Return a check that found all well."""
    return Check(name=name, state=State.OK, message=message)


def warn(name: str, message: str, remedy: str) -> Check:
    """Return a check that found something that may be wrong."""
    return Check(name=name, state=State.WARN, message=message, remedy=remedy)


def error(name: str, message: str, remedy: str) -> Check:
    """Return a check that found something that is wrong."""
    return Check(name=name, state=State.ERROR, message=message, remedy=remedy)


Probe = Callable[[Client, Question], Awaitable[Sequence[Check]]]


async def run_checks(client: Client, question: Question) -> list[Check]:
    """Return all checks in order; raises `UnreachableError` or `AccessError` if the API server cannot be asked."""
    found = list(await check_server(client, question))
    probes = (entry for entry in PROBES if question.mesh or entry[1] is not check_istiod)
    results = await asyncio.gather(*(_guarded(name, probe, client, question) for name, probe in probes))
    return [*found, *(check for checks in results for check in checks)]


async def _guarded(name: str, probe: Probe, client: Client, question: Question) -> Sequence[Check]:
    """A question that the API server refuses to answer is a warning; one that it cannot be asked ends the report."""
    try:
        return await probe(client, question)
    except ApiError as refused:
        return [warn(name, f"cannot be seen: {refused.message or refused}", "ask as somebody who may read this")]


async def check_server(client: Client, _question: Question) -> Sequence[Check]:
    """The API server answers, and its clock agrees with this one's."""
    version = msgspec.json.decode(await client.request("GET", "/version"))
    before = datetime.now(UTC)
    there = await client.date()
    said = f"Kubernetes {version.get('gitVersion', '')}"
    return [ok("api server", said), judge_clock(before, there, datetime.now(UTC))]


def judge_clock(before: datetime, there: datetime, after: datetime) -> Check:
    """Compare the server's time, of which fractions of a second are cut off, with ours before and after asking."""
    skew = max((before - there).total_seconds() - 1.0, (there - after).total_seconds())
    if skew > SKEW:
        return error("clock", f"differs from the API server's by {skew:.0f} s", "synchronize clocks (NTP)")
    return ok("clock", "agrees with the API server's")


async def check_definitions(client: Client, _question: Question) -> Sequence[Check]:
    """The kinds that are read are defined, in a version that is understood."""
    groups: dict[str, list[str]] = {}
    missing: list[str] = []
    optional: list[str] = []
    older: list[str] = []
    for kind in list_kinds().kinds:
        if kind.group in _BUILT_IN:
            continue
        name = f"{kind.plural}.{kind.group}"
        found = await _get(client, resource_path(CRD, "customresourcedefinitions", name=name))
        if found is None:
            (optional if kind.optional else missing).append(name)
            continue
        served = {version["name"] for version in found["spec"]["versions"] if version.get("served")}
        if not served & set(kind.versions):
            older.append(f"{name} ({', '.join(sorted(served))})")
        groups.setdefault(kind.group, []).append(_release(found))
    checks = []
    if missing:
        checks.append(error("definitions", f"missing: {', '.join(missing)}", _INSTALL_DEFINITIONS))
    if older:
        checks.append(error("definitions", f"no version that is understood: {', '.join(older)}", _INSTALL_DEFINITIONS))
    if not missing and not older:
        said = "; ".join(f"{group} {_joined(set(releases))}".strip() for group, releases in sorted(groups.items()))
        absent = f"; not there, so not served: {', '.join(optional)}" if optional else ""
        checks.append(ok("definitions", f"{said}{absent}"))
    return checks


CRD: Final = "apiextensions.k8s.io/v1"
_BUILT_IN: Final = frozenset({"", "discovery.k8s.io"})
"""Groups of kinds that need no definition."""
_INSTALL_DEFINITIONS: Final = "install the Gateway API (v1.6.1) and the chart meshgw-crds"


def _release(definition: Document) -> str:
    annotations = definition["metadata"].get("annotations") or {}
    return str(annotations.get("gateway.networking.k8s.io/bundle-version", ""))


def _joined(values: Iterable[str]) -> str:
    return ", ".join(sorted(value for value in values if value))


async def check_classes(client: Client, _question: Question) -> Sequence[Check]:
    """There is a GatewayClass of ours, and the controller has accepted it."""
    items = await _list(client, resource_path("gateway.networking.k8s.io/v1", "gatewayclasses"))
    ours = [item for item in items if item["spec"].get("controllerName") == CONTROLLER_NAME]
    if not ours:
        return [
            error("classes", f"no GatewayClass of {CONTROLLER_NAME}", "kubectl apply -f manifests/base/classes.yaml")
        ]
    waiting = [item["metadata"]["name"] for item in ours if _condition(item, "Accepted") is None]
    refused = [item for item in ours if (_condition(item, "Accepted") or {}).get("status") == "False"]
    checks = [
        error("classes", f"{item['metadata']['name']}: {(_condition(item, 'Accepted') or {}).get('message')}",
              "correct the class")
        for item in refused
    ]  # fmt: skip
    if waiting:
        checks.append(warn("classes", f"not yet judged: {', '.join(waiting)}", "see whether a controller leads"))
    return checks or [ok("classes", ", ".join(sorted(item["metadata"]["name"] for item in ours)))]


async def check_permissions(client: Client, question: Question) -> Sequence[Check]:
    """The controller's account may do what the rules say, in every place that the scope grants."""
    account = f"system:serviceaccount:{question.scope.home}:{NAME}"
    asked = msgspec.json.encode({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
    who = msgspec.json.decode(await client.request("POST", _WHO, body=asked))
    is_self = who["status"]["userInfo"].get("username") == account
    held = {*grants(question.scope), *await _secret_grants(client, question.scope)}
    needs = [
        (grant, rule.group, resource, verb, name)
        for grant in sorted(held)
        for rule in rules(grant.reach, list_kinds().kinds)
        for resource in rule.resources
        for verb in rule.verbs
        for name in rule.names or ("",)
    ]
    limit = asyncio.Semaphore(AT_ONCE)

    async def allowed(need: tuple[Grant, str, str, str, str]) -> bool:
        async with limit:
            return await _is_allowed(client, None if is_self else account, need)

    answers = await asyncio.gather(*(allowed(need) for need in needs))
    denied: dict[Grant, set[str]] = {}
    for (grant, group, resource, verb, _name), answer in zip(needs, answers, strict=True):
        if not answer:
            denied.setdefault(grant, set()).add(f"{verb} {resource}{'.' if group else ''}{group}")
    checks = [_denied(grant, sorted(what), account, question.scope.home) for grant, what in sorted(denied.items())]
    return checks or [ok("permissions", f"{account} may do all {len(needs)} things it needs")]


def _denied(grant: Grant, what: Sequence[str], account: str, home: str) -> Check:
    where = f" in {grant.namespace}" if grant.namespace else ""
    more = f" and {len(what) - 3} more" if len(what) > 3 else ""
    message = f"{account} may not {', '.join(what[:3])}{more}{where}"
    if grant.reach is Reach.SECRETS and grant.namespace:
        bind = f"kubectl create rolebinding meshgw-secrets -n {grant.namespace} --clusterrole=meshgw-secrets"
        return warn("permissions", message, f"{bind} --serviceaccount={home}:{NAME}")
    return error("permissions", message, "apply manifests/base/rbac.yaml, or upgrade the chart meshgw")


_WHO: Final = resource_path("authentication.k8s.io/v1", "selfsubjectreviews")


async def _secret_grants(client: Client, scope: Scope) -> set[Grant]:
    """Return where Secrets have to be read: the namespaces of Gateways of ours with certificates."""
    if scope.cluster_wide_secrets:
        return set()
    items = await _list(client, resource_path("gateway.networking.k8s.io/v1", "gateways"))
    namespaces = set()
    for item in items:
        if str(item["spec"].get("gatewayClassName", "")).startswith(NAME):
            for listener in item["spec"].get("listeners") or ():
                for ref in (listener.get("tls") or {}).get("certificateRefs") or ():
                    namespaces.add(ref.get("namespace") or item["metadata"]["namespace"])
    return {Grant(Reach.SECRETS, namespace) for namespace in namespaces}


async def _is_allowed(client: Client, account: str | None, need: tuple[Grant, str, str, str, str]) -> bool:
    """Ask by SelfSubjectAccessReview as the controller itself, by SubjectAccessReview as somebody else."""
    grant, group, resource, verb, name = need
    plural, _, subresource = resource.partition("/")
    attributes = {"group": group, "resource": plural, "subresource": subresource, "verb": verb, "name": name}
    spec: Document = {"resourceAttributes": attributes | {"namespace": grant.namespace}}
    kind = "SelfSubjectAccessReview"
    if account is not None:
        kind = "SubjectAccessReview"
        namespace = account.split(":")[2]
        spec |= {
            "user": account,
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"],
        }
    body = msgspec.json.encode({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec})
    path = resource_path("authorization.k8s.io/v1", f"{kind.lower()}s")
    answer = msgspec.json.decode(await client.request("POST", path, body=body))
    return bool(answer["status"].get("allowed"))


async def check_controller(client: Client, question: Question) -> Sequence[Check]:
    """The controller runs, and one replica leads."""
    home = question.scope.home
    deployment = await _get(client, resource_path("apps/v1", "deployments", namespace=home, name=NAME))
    if deployment is None:
        return [error("controller", f"no Deployment {home}/{NAME}", "install the chart meshgw, or name its namespace")]
    wanted = deployment["spec"].get("replicas", 1)
    ready = (deployment.get("status") or {}).get("readyReplicas", 0)
    image = deployment["spec"]["template"]["spec"]["containers"][0].get("image", "")
    said = f"{ready} of {wanted} replicas ready, {image}"
    logs = f"kubectl -n {home} logs deployment/{NAME}"
    state = ok("controller", said) if ready >= wanted > 0 else (warn if ready else error)("controller", said, logs)
    return [state, await _check_leader(client, home)]


async def _check_leader(client: Client, home: str) -> Check:
    lease = await _get(client, resource_path("coordination.k8s.io/v1", "leases", namespace=home, name=NAME))
    return judge_leader((lease or {}).get("spec") or {}, await client.date(), f"kubectl -n {home} get pods")


def judge_leader(lease: Document, now: datetime, look: str) -> Check:
    """Say from the spec of the Lease who leads; `now` is by the server's clock."""
    holder, renewed = lease.get("holderIdentity") or "", lease.get("renewTime")
    if not holder or not renewed:
        return error("leader", "no replica leads, so no status is written", look)
    age = (now - datetime.fromisoformat(renewed)).total_seconds()
    if age > float(lease.get("leaseDurationSeconds") or 15):
        return error("leader", f"{holder} was last heard of {age:.0f} s ago", look)
    if age < -SKEW:
        return error("leader", f"the clock of {holder} is {-age:.0f} s ahead", "synchronize clocks (NTP)")
    return ok("leader", holder)


async def _get(client: Client, path: str) -> Document | None:
    """Return an object, None if it does not exist."""
    try:
        found: Document = msgspec.json.decode(await client.request("GET", path))
    except ApiError as refused:
        if refused.status == 404:
            return None
        raise
    return found


async def _list(client: Client, path: str, selector: str = "") -> list[Document]:
    """Return all objects of a collection, none if the kind does not exist."""
    query = {"limit": "500", **({"labelSelector": selector} if selector else {})}
    items: list[Document] = []
    while True:
        try:
            page = msgspec.json.decode(await client.request("GET", path, query=query))
        except ApiError as refused:
            if refused.status == 404:
                return []
            raise
        items += page.get("items") or ()
        query["continue"] = page["metadata"].get("continue") or ""
        if not query["continue"]:
            return items


def _condition(item: Document, kind: str) -> Document | None:
    """Return a condition that a controller has set; Unknown counts as none."""
    for condition in (item.get("status") or {}).get("conditions") or ():
        if condition.get("type") == kind and condition.get("status") != "Unknown":
            return dict(condition)
    return None


async def check_istiod(client: Client, question: Question) -> Sequence[Check]:
    """The istiod of the mesh has ready endpoints, and its root is where the controller looks for it."""
    mesh = question.scope.mesh
    service = f"istiod-{question.revision}" if question.revision else "istiod"
    slices = await _list(
        client,
        resource_path("discovery.k8s.io/v1", "endpointslices", namespace=mesh),
        f"kubernetes.io/service-name={service}",
    )
    ready = [
        endpoint
        for found in slices
        for endpoint in found.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
    ]
    if ready:
        state = ok("istiod", f"{mesh}/{service} has {len(ready)} ready endpoint{'s' * (len(ready) != 1)}")
    else:
        state = error("istiod", f"{mesh}/{service} has no ready endpoint", "install Istio, or name its namespace")
    return [state, await _check_root(client, mesh)]


async def _check_root(client: Client, mesh: str) -> Check:
    """Judge the roots by which istiod is verified: those in its own namespace, where no tenant can put others."""
    path = resource_path("v1", "configmaps", namespace=mesh, name=ROOTS_CONFIG_MAP)
    found = await _get(client, path)
    if found is None:
        return error("mesh root", f"no ConfigMap {mesh}/{ROOTS_CONFIG_MAP}", "istiod writes it: see its logs")
    return judge_roots(str((found.get("data") or {}).get(ROOTS_KEY, "")), datetime.now(UTC))


def judge_roots(pem: str, now: datetime) -> Check:
    """Say whether a bundle has a root that is valid, and for how long."""
    try:
        roots = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        return error("mesh root", f"the ConfigMap {ROOTS_CONFIG_MAP} holds no certificate", "see istiod's logs")
    valid = [root for root in roots if root.not_valid_before_utc <= now < root.not_valid_after_utc]
    if not valid:
        return error("mesh root", f"expired on {roots[-1].not_valid_after_utc:%Y-%m-%d}", "renew Istio's root")
    end = min(root.not_valid_after_utc for root in valid)
    said = f"{len(valid)} valid, until {end:%Y-%m-%d}"
    if (end - now).days < 30:
        return warn("mesh root", said, "renew Istio's root before that day")
    return ok("mesh root", said)


async def check_proxies(client: Client, question: Question) -> Sequence[Check]:
    """Proxies have an image that can be had, run, and have accepted what they were sent."""
    namespaces = question.scope.namespaces or ("",)
    pods = [
        pod
        for namespace in namespaces
        for pod in await _list(client, resource_path("v1", "pods", namespace=namespace), PROXIES)
    ]
    checks = [judge_images(pods)]
    try:
        found = await collect(client, question.scope.home)
    except (ApiError, UnreachableError) as problem:
        checks.append(warn("proxies in sync", f"cannot be seen: {problem}", "pods/portforward must be allowed"))
        return checks
    connected = [proxy for proxies in found.told.values() for proxy in proxies]
    refusing = sorted({
        proxy.name for proxy in connected if any(share.state == REFUSED for share in proxy.services.values())
    })  # fmt: skip
    names = {proxy.name for proxy in connected}
    absent = sorted(name for pod in pods if (name := pod["metadata"]["name"]) not in names and _runs(pod))
    if found.silent:  # they may have the proxies that are missing
        absent = []
        look = f"kubectl -n {question.scope.home} get pods"
        checks.append(warn("proxies in sync", f"not all seen: {'; '.join(found.silent.values())}", look))
    if refusing:
        checks.append(error("proxies in sync", f"refused something: {', '.join(refusing)}", "meshgw proxy list"))
    if absent:
        checks.append(error("proxies in sync", f"run without a controller: {', '.join(absent)}", "see their logs"))
    if not refusing and not absent and not found.silent:
        behind = sum(not proxy.is_synced for proxy in connected)
        checks.append(ok("proxies in sync", f"{len(connected) - behind} in sync, {behind} being updated"))
    return checks


PROXIES: Final = "app.kubernetes.io/name=meshgw-proxy"
_PULL: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})


def judge_images(pods: Sequence[Document]) -> Check:
    """Say which images proxies have, or which one a node cannot have."""
    images = {container.get("image", "") for pod in pods for container in pod["spec"]["containers"]}
    for pod in pods:
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            waiting = (status.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in _PULL:
                where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
                message = f"{where} cannot have {status.get('image', '')}: {waiting['reason']}"
                return error("envoy image", message, "name another image in GatewayParameters, or let the node have it")
    return ok("envoy image", _joined(images) or "no proxies yet")


def _runs(pod: Document) -> bool:
    return (pod.get("status") or {}).get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")


PROBES: Final[tuple[tuple[str, Probe], ...]] = (
    ("definitions", check_definitions),
    ("classes", check_classes),
    ("permissions", check_permissions),
    ("controller", check_controller),
    ("istiod", check_istiod),
    ("proxies", check_proxies),
)
"""What is asked, in the order of the report."""
