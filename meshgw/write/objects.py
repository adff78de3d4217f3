"""Keeps the Kubernetes objects of proxies as they should be: applies, corrects and removes them.

Only what is the Gateway's is touched. An object that somebody else made under a name that a Gateway needs is a problem
of that Gateway, not something to take over; and nothing is deleted whose owner is not exactly that Gateway. Of Gateways
that are another controller's, which may be a meshgw too, only what this one applied last is deleted. If a second
installation goes by the same name, who starts last has the objects, and the other one does not take them back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from meshgw.api.meta import Key, ObjectRef, OwnedMeta, OwnerReference
from meshgw.api.registry import Kind
from meshgw.emit.tables import ProxyObject
from meshgw.ir.proxy import Deploying, ProxyPlan
from meshgw.kube.client import APPLY_PATCH, Client
from meshgw.kube.errors import ApiError
from meshgw.kube.paths import path_of
from meshgw.kube.seen import Seen
from meshgw.write.queue import Hold, Outcome, Pace, Queue, Timer, WriteObserver, outcome_of
from meshgw.write.workload import (
    ANNOTATION_APPLIED,
    ANNOTATION_CONTROLLER,
    ANNOTATION_INSTALLATION,
    PROXY_KINDS,
    Found,
    OwnedObject,
    Problem,
    find,
    fingerprint,
    is_in_force,
)

_log = structlog.get_logger(__name__)

FIELD_MANAGER: Final = "meshgw"

_KINDS: Final = {kind.name: kind for kind in PROXY_KINDS}
_OTHER_UID: Final = "metadata.uid: "
"""What the API server says, with status 422, of an object that has another uid than what is applied to it."""
_IMMUTABLE: Final = ("immutable", "may not change once set", "may not be changed")
_UNTYPED: Final = "failed to create typed patch object"
"""What the API server says, with status 500, of fields that it does not know or that have another type."""

_ACCOUNT: Final = "ServiceAccount"
_WORKLOADS: Final = ("DaemonSet", "Deployment")
_FIRST: Final = (_ACCOUNT, "ConfigMap", "Service")
"""What pods wait for, and what takes longest to get an address."""
_TAKEN: Final = "NameTaken"
_NEVER: Final = "1"
"""A resource version that no object has: it is applied only where there is none."""
_PACE: Final = Pace(longest_refusal=60.0)

Report = Callable[[Key, Sequence[Problem]], None]
"""Takes a Gateway and all that is wrong with its objects now."""


class _AnswerMeta(OwnedMeta, frozen=True, kw_only=True):
    resource_version: str = ""


class _Answer(OwnedObject, frozen=True, kw_only=True):
    """An object as a request returns it."""

    metadata: _AnswerMeta


class _BodyMeta(msgspec.Struct, frozen=True, rename="camel"):
    owner_references: tuple[OwnerReference, ...] = ()


class _Body(msgspec.Struct, frozen=True):
    metadata: _BodyMeta = _BodyMeta()


class _Applied(NamedTuple):
    """What is in force, and the object that says so: whoever applied it, since its digest tells what was applied."""

    body: bytes
    digest: bytes


class _Object:
    """What is known of one object."""

    __slots__ = ("applied", "found", "lost", "row", "unjudged")

    def __init__(self) -> None:
        self.row: ProxyObject | None = None
        self.found: Found | None = None
        self.applied: _Applied | None = None
        self.lost = False
        """Whether it was told that another installation has it."""
        self.unjudged: OwnedObject | None = None
        """All of what was found, until it is known what it should be."""


_answer_of = msgspec.json.Decoder(_Answer).decode
_body_of = msgspec.json.Decoder(_Body).decode


class ObjectWriter:
    """Makes, corrects and removes the objects of proxies, while this replica leads.

    `observe` and `desire` are called on the event loop in every replica. `controller` is the name that GatewayClasses
    have for this installation, `home` its namespace. `hold` lets the leader write, and nobody else. What cannot be done
    goes to `report`, and an empty sequence when it can be.
    """

    def __init__(
        self,
        client: Client,
        *,
        controller: str,
        home: str,
        hold: Hold,
        report: Report,
        pace: Pace | None = None,
        observer: WriteObserver | None = None,
        timer: Timer | None = None,
    ) -> None:
        self._client = client
        self._controller = controller
        self._home = home
        self._hold = hold
        self._report = report
        self._observer = observer
        self._objects: dict[ObjectRef, _Object] = {}
        self._plans: dict[Key, ProxyPlan] = {}
        self._problems: dict[Key, dict[ObjectRef, Problem]] = {}
        self.queue: Final = Queue[ObjectRef]("objects", self._write, pace=pace or _PACE, observer=observer, timer=timer)

    def observe(self, kind: Kind, seen: Sequence[Seen]) -> None:
        """Take in what was seen of objects of one of the `PROXY_KINDS`."""
        for item in seen:
            ref = ObjectRef(kind.name, *item.key)
            known = self._objects.get(ref)
            if item.observed is not None and isinstance(item.object, OwnedObject):
                known = known or self._objects.setdefault(ref, _Object())
                version = item.observed.resource_version
                known.found = find(ref.kind, item.object, uid=item.observed.uid, resource_version=version)
                known.unjudged = item.object
                self._judge(known)
                self.queue.mark(ref, fresh=False)
                self._mark_workloads(ref)
            elif item.observed is None and known is not None:
                known.found = known.applied = known.unjudged = None
                if not self._forget(ref, known):
                    self.queue.mark(ref, fresh=False)

    def desire(self, objects: Mapping[ObjectRef, ProxyObject | None], plans: Mapping[Key, ProxyPlan | None]) -> None:
        """Take in the objects that changed, and what is to be done with those of Gateways whose plan changed.

        Of a Gateway without a plan nothing is removed: if it is gone, the garbage collector takes what it owned.
        """
        for gateway, plan in plans.items():
            if plan is not None:
                self._plans[gateway] = plan
            else:
                self._plans.pop(gateway, None)
        for ref in sorted(objects, key=_turn):
            known = self._objects.setdefault(ref, _Object())
            former, known.row = known.row, objects[ref]
            self._judge(known)
            if former is not None and (known.row is None or known.row.gateway != former.gateway):
                self._settle(former.gateway, ref, None)
            if not self._forget(ref, known):
                self.queue.mark(ref)
        for ref, known in self._objects.items():
            known.unjudged = None
            if known.row is None and known.found is not None and known.found.gateway_in(ref.namespace) in plans:
                self.queue.mark(ref)

    def forget(self, namespace: str) -> None:
        """Know nothing of a namespace any more that is served no longer: all that is there stays as it is."""
        for gateway in [each for each in self._problems if each.namespace == namespace]:
            del self._problems[gateway]
            self._report(gateway, ())
        for gateway in [each for each in self._plans if each.namespace == namespace]:
            del self._plans[gateway]
        for ref in [each for each in self._objects if each.namespace == namespace]:
            known = self._objects.pop(ref)
            known.row = known.found = known.applied = known.unjudged = None

    async def run(self) -> None:
        """Write until cancelled: while this replica leads, and not before the first commit of all that there is."""
        for gateway in list(self._problems):
            del self._problems[gateway]
            self._report(gateway, ())
        await self.queue.run(sorted(self._objects, key=_turn))

    async def drain(self, within: float) -> int:
        """Write what waits, for so many seconds at most; return how many objects were left."""
        return await self.queue.drain(within)

    def problems(self, gateway: Key) -> tuple[Problem, ...]:
        """Return what is wrong with the objects of a Gateway."""
        return tuple(sorted(self._problems.get(gateway, {}).values()))

    def _forget(self, ref: ObjectRef, known: _Object) -> bool:
        if known.row is not None or known.found is not None:
            return False
        del self._objects[ref]
        return True

    async def _write(self, ref: ObjectRef) -> Outcome:
        known = self._objects.get(ref)
        if known is None:
            return Outcome.IDLE
        if known.row is None:
            return await self._remove(ref, known.found) if known.found is not None else Outcome.IDLE
        return await self._keep(ref, known, known.row)

    async def _keep(self, ref: ObjectRef, known: _Object, row: ProxyObject) -> Outcome:
        """Bring an object to what its row says."""
        if ref.kind in _WORKLOADS and not self._has_account(ref, row):
            return Outcome.IDLE
        found = known.found
        if found is not None and self._is_done(ref, known, row, found):
            return Outcome.IDLE
        try:
            # What does not carry our label is not watched, but may be there all the same.
            there = found or await self._look(ref)
            if self._objects.get(ref) is not known:
                return Outcome.IDLE
            if problem := _obstacle(ref, row, there):
                self._settle(row.gateway, ref, problem)
                return Outcome.REFUSED if problem.reason == _TAKEN or found is None else Outcome.IDLE
            after = await self._apply(ref, row, there)
        except ApiError as error:
            if not _is_refusal(error):
                # Conflicts too: nobody but us writes what we apply, but quotas are counted by everybody.
                _log.warning("not applied", object=str(ref), error=str(error))
                return Outcome.FAILED
            if known.row is row:
                self._settle(row.gateway, ref, _problem(ref, row, error))
            return Outcome.REFUSED
        known.applied = _Applied(row.body, after.digest)
        if known.found is found:
            known.found = after
            self._mark_workloads(ref)
        if known.row is row:
            self._settle(row.gateway, ref, None)
        return Outcome.WRITTEN

    def _is_done(self, ref: ObjectRef, known: _Object, row: ProxyObject, found: Found) -> bool:
        """Whether there is nothing to apply to what was found."""
        if known.applied == (row.body, found.digest):
            self._settle(row.gateway, ref, None)
            return True
        return self._is_lost(ref, known, found)

    def _is_lost(self, ref: ObjectRef, known: _Object, found: Found) -> bool:
        """Whether an object that this installation applied was taken by another one that goes by the same name.

        Both would apply it again and again, and its pods would be replaced each time.
        """
        if known.applied is None or found.controller != self._controller or found.installation in {"", self._home}:
            return False
        if not known.lost:
            known.lost = True
            _log.error(
                "another installation of this controller's name has taken an object: give them names of their own",
                object=str(ref),
                installation=found.installation,
                controller=self._controller,
            )
        return True

    def _judge(self, known: _Object) -> None:
        """Find out whether a row is in force already, as after a restart or with a new leader."""
        row, found, seen = known.row, known.found, known.unjudged
        if row is None or found is None or seen is None:
            return
        known.unjudged = None
        is_own = (found.controller, found.installation) == (self._controller, self._home)
        if is_own and found.is_of(_owner_of(row)) and is_in_force(seen, row.body):
            known.applied = _Applied(row.body, found.digest)

    def _has_account(self, ref: ObjectRef, row: ProxyObject) -> bool:
        """Return whether the ServiceAccount as which a workload runs is of the same Gateway: nobody else's is used."""
        account = ref._replace(kind=_ACCOUNT)
        known = self._objects.get(account)
        if known is not None and known.found is not None and known.found.is_of(_owner_of(row)):
            return True
        if known is None or known.row is None:  # else its own problem is told, if it has one
            message = f"{ref} waits for {account}, which the Gateway does not have"
            self._settle(row.gateway, ref, Problem(row.gateway, ref, "NoServiceAccount", message))
        return False

    def _mark_workloads(self, account: ObjectRef) -> None:
        if account.kind == _ACCOUNT:
            for ref in (account._replace(kind=kind) for kind in _WORKLOADS):
                if ref in self._objects:
                    self.queue.mark(ref, fresh=False)

    async def _look(self, ref: ObjectRef) -> Found | None:
        try:
            return _found(ref, await self._request("GET", _path(ref)))
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    async def _apply(self, ref: ObjectRef, row: ProxyObject, there: Found | None) -> Found:
        """Return the object after it was applied; one that cannot be changed is made anew where nobody is harmed."""
        try:
            return await self._send(ref, row, there)
        except ApiError as error:
            if there is None or not there.replaceable or not _is_immutable(error):
                raise
            _log.info("made anew, because it cannot be changed", object=str(ref), cause=error.message)
            await self._delete(ref, there)
            return await self._send(ref, row, None)

    async def _send(self, ref: ObjectRef, row: ProxyObject, there: Found | None) -> Found:
        """Apply to exactly what was seen, or where nothing is; raises `ApiError` 409 if it is not so any more."""
        body: dict[str, Any] = msgspec.json.decode(row.body)
        precondition = {"resourceVersion": _NEVER} if there is None else {"uid": there.uid}
        metadata = body["metadata"]
        ours = {
            ANNOTATION_CONTROLLER: self._controller,
            ANNOTATION_INSTALLATION: self._home,
            ANNOTATION_APPLIED: fingerprint(row.body),
        }
        annotations = {**metadata.get("annotations", {}), **ours}
        body["metadata"] = {**metadata, "annotations": annotations, **precondition}
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        encoded = msgspec.json.encode(body)
        try:
            answer = await self._request(
                "PATCH", _path(ref, row.api_version), query=query, body=encoded, content_type=APPLY_PATCH
            )
        except ApiError as error:
            if error.status == 422 and _OTHER_UID in error.message:
                raise ApiError(409, "Conflict", f"{ref} is not the one that was seen") from None
            raise
        self._tell(ref, "apply")
        return _found(ref, answer)

    async def _remove(self, ref: ObjectRef, found: Found) -> Outcome:
        """Delete an object that its Gateway no longer needs."""
        plan = self._plans.get(found.gateway_in(ref.namespace))
        if plan is None or plan.deploying is Deploying.HELD:
            return Outcome.IDLE
        if found.deleting or not found.is_only_of(plan.uid):
            return Outcome.IDLE
        if plan.deploying is Deploying.RELEASED and found.controller != self._controller:
            return Outcome.IDLE
        await self._delete(ref, found)
        return Outcome.WRITTEN

    async def _delete(self, ref: ObjectRef, found: Found) -> None:
        """Delete exactly what was seen; raises `ApiError` 409 if it is not that any more."""
        preconditions = {"uid": found.uid, "resourceVersion": found.resource_version}
        body = {"propagationPolicy": "Background", "preconditions": preconditions}
        await self._request("DELETE", _path(ref), body=msgspec.json.encode(body))
        self._tell(ref, "delete")

    async def _request(self, method: str, path: str, **more: Any) -> bytes:
        async with self._hold():
            return await self._client.request(method, path, **more)

    def _settle(self, gateway: Key, ref: ObjectRef, problem: Problem | None) -> None:
        """Note what is wrong with an object, None for nothing, and tell if that is news."""
        held = self._problems.setdefault(gateway, {})
        before = held.get(ref)
        if problem is not None:
            held[ref] = problem
        else:
            held.pop(ref, None)
        if before != problem:
            self._report(gateway, self.problems(gateway))
        if not held:
            del self._problems[gateway]

    def _tell(self, ref: ObjectRef, verb: str) -> None:
        if self._observer is not None:
            self._observer.wrote(ref.kind, verb)


def _turn(ref: ObjectRef) -> tuple[int, ObjectRef]:
    return (_FIRST.index(ref.kind) if ref.kind in _FIRST else len(_FIRST)), ref


def _path(ref: ObjectRef, api_version: str = "") -> str:
    return path_of(_KINDS[ref.kind], ref.key, version=api_version.rpartition("/")[2])


def _found(ref: ObjectRef, answer: bytes) -> Found:
    read = _answer_of(answer)
    return find(ref.kind, read, uid=read.metadata.uid, resource_version=read.metadata.resource_version)


def _obstacle(ref: ObjectRef, row: ProxyObject, there: Found | None) -> Problem | None:
    """Return what forbids to apply a row to the object that is there."""
    if there is None:
        return None
    if not there.belongs_to(row.gateway, _owner_of(row)):
        message = f"{ref} exists, and was not made for this Gateway: rename or remove it"
        return Problem(row.gateway, ref, _TAKEN, message)
    if there.deleting:
        return Problem(row.gateway, ref, "Terminating", f"{ref} is being deleted: it is made anew when it is gone")
    return None


def _owner_of(row: ProxyObject) -> str:
    """Return the uid of the Gateway that a row is for."""
    return next((owner.uid for owner in _body_of(row.body).metadata.owner_references), "")


def _problem(ref: ObjectRef, row: ProxyObject, error: ApiError) -> Problem:
    if _is_immutable(error):
        message = f"{ref} cannot be changed in place: {error.message}. Delete it, and it is made anew"
        return Problem(row.gateway, ref, "Immutable", message)
    reason = "Invalid" if _UNTYPED in error.message else error.reason or "Refused"
    return Problem(row.gateway, ref, reason, f"{ref}: {error.message}")


def _is_immutable(error: ApiError) -> bool:
    return error.status == 422 and any(words in error.message for words in _IMMUTABLE)


def _is_refusal(error: ApiError) -> bool:
    """Whether it is this object that the API server will not have: also one for a namespace that is gone or going."""
    return error.status == 404 or _UNTYPED in error.message or outcome_of(error) is Outcome.REFUSED
