"""Patches of statuses: what is ours changes, what is not stays, and nothing is written twice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshgw.api.gateway import ParentReference, RouteGroupKind
from meshgw.ir.status import (
    ClassStatus,
    Condition,
    GatewayStatus,
    ListenerStatus,
    ParentStatus,
    PolicyStatus,
    RouteStatus,
    Status,
    StatusAddress,
)
from meshgw.kube.seen import Observed
from meshgw.write.status import OURS, build_patch, generation_of

OURSELVES = "meshgw.dev/gateway-controller"
OTHER = "istio.io/gateway-controller"
THEN, NOW = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"

ACCEPTED = Condition(type="Accepted", status=True, reason="Accepted", observed_generation=1)
REFUSED = Condition(type="Accepted", status=False, reason="NoMatchingParent", message="none", observed_generation=1)
REFS = Condition(type="ResolvedRefs", status=True, reason="ResolvedRefs", observed_generation=1)
LISTENER = ListenerStatus(
    name="http", supported_kinds=(RouteGroupKind(kind="HTTPRoute"),), attached_routes=2, conditions=(ACCEPTED,)
)
GATEWAY = GatewayStatus(
    addresses=(StatusAddress(type="IPAddress", value="10.0.0.1"),),
    conditions=(ACCEPTED,),
    listeners=(LISTENER,),
    attached_listener_sets=1,
)


def seen(status: Any = None, version: str = "7") -> Observed:
    raw = status if isinstance(status, bytes) else json.dumps(status).encode() if status is not None else b""
    return Observed(uid="u", resource_version=version, generation=1, status=raw)


def patch(status: Status | None, observed: Observed, now: str = NOW, last: Status | None = None) -> Any:
    body = build_patch(status, observed, controller=OURSELVES, now=now, last=last)
    return None if body is None else json.loads(body)["status"]


def merged(observed: Observed, body: bytes) -> Observed:
    """The object after a patch that changes fields of the status, as the API server would hold it."""
    fields = dict(msgspec.json.decode(observed.status or b"{}", type=dict[str, msgspec.Raw]))
    for name, value in msgspec.json.decode(body, type=dict[str, dict[str, msgspec.Raw]])["status"].items():
        fields.pop(name, None)
        if bytes(value) != b"null":
            fields[name] = value
    return Observed(uid="u", resource_version="8", generation=1, status=msgspec.json.encode(fields))


def condition(kind: str = "Accepted", status: str = "True", at: str = THEN, **more: Any) -> dict[str, Any]:
    whole = {"type": kind, "status": status, "reason": kind, "message": "", "observedGeneration": 1}
    return {"lastTransitionTime": at, **whole, **more}


def entry(
    name: str, *conditions: dict[str, Any], controller: str = OURSELVES, ref: str = "parentRef"
) -> dict[str, Any]:
    reference = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name}
    return {ref: reference, "controllerName": controller, "conditions": list(conditions)}


def route(*names: str, conditions: tuple[Condition, ...] = (ACCEPTED, REFS)) -> RouteStatus:
    return RouteStatus(
        parents=tuple(
            ParentStatus(parent_ref=ParentReference(name=name), controller_name=OURSELVES, conditions=conditions)
            for name in names
        )
    )


# --- Routes and policies -------------------------------------------------------------------------------------------


def test_a_route_without_status_gets_our_entries() -> None:
    body = build_patch(route("gw"), seen(), controller=OURSELVES, now=NOW)
    assert body is not None
    whole = json.loads(body)
    assert whole["metadata"] == {"resourceVersion": "7", "uid": "u"}
    (written,) = whole["status"]["parents"]
    assert written["parentRef"] == {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"}
    assert written["controllerName"] == OURSELVES
    assert {c["type"]: (c["status"], c["lastTransitionTime"]) for c in written["conditions"]} == {
        "Accepted": ("True", NOW),
        "ResolvedRefs": ("True", NOW),
    }


def test_what_means_the_same_is_not_written_again() -> None:
    stored = {
        "parents": [
            entry("b", condition("ResolvedRefs"), condition()),
            entry("x", controller=OTHER),
            entry("a", condition(), condition("ResolvedRefs")),
        ]
    }
    assert patch(route("a", "b"), seen(stored)) is None


def test_defaults_that_another_writer_left_out_are_the_same_reference() -> None:
    short = entry("gw", condition(), condition("ResolvedRefs")) | {"parentRef": {"name": "gw"}}
    assert patch(route("gw"), seen({"parents": [short]})) is None


def test_entries_of_others_stay_as_they_are_and_where_they_are() -> None:
    first = b'{"conditions" :[ {"type":"X","n":1.50}],"controllerName":"a.b/c", "parentRef":{"name":"gw"},"later":{}}'
    last = b'{"controllerName":"istio.io/gateway-controller","parentRef":{"name":"gw"},"conditions":[]}'
    ours = json.dumps(entry("gw", condition(status="False"))).encode()
    body = build_patch(
        route("gw", "new"),
        seen(b'{"parents":[' + b",".join((first, ours, last)) + b"]}"),
        controller=OURSELVES,
        now=NOW,
    )
    assert body is not None
    assert first in body
    assert last in body
    assert [parent["controllerName"] for parent in json.loads(body)["status"]["parents"]] == [
        "a.b/c",
        OURSELVES,
        OTHER,
        OURSELVES,
    ]


def test_a_time_moves_only_with_the_status() -> None:
    stored = {"parents": [entry("gw", condition(), condition("ResolvedRefs", reason="Old"))]}
    wanted = route("gw", conditions=(REFUSED, REFS))
    (written,) = patch(wanted, seen(stored))["parents"]
    assert {c["type"]: c["lastTransitionTime"] for c in written["conditions"]} == {
        "Accepted": NOW,
        "ResolvedRefs": THEN,
    }


def test_a_new_generation_is_written_and_moves_no_time() -> None:
    stored = {"parents": [entry("gw", condition(), condition("ResolvedRefs"))]}
    newer = tuple(msgspec.structs.replace(c, observed_generation=2) for c in (ACCEPTED, REFS))
    (written,) = patch(route("gw", conditions=newer), seen(stored))["parents"]
    assert {(c["observedGeneration"], c["lastTransitionTime"]) for c in written["conditions"]} == {(2, THEN)}


def test_an_entry_whose_parent_is_gone_goes_too() -> None:
    stored = {"parents": [entry("old", condition()), entry("old", controller=OTHER)]}
    assert patch(route(), seen(stored)) == {"parents": [entry("old", controller=OTHER)]}


def test_a_route_that_is_not_ours_any_more_keeps_the_entries_of_others() -> None:
    stored = {"parents": [entry("gw", condition()), entry("gw", controller=OTHER)]}
    assert patch(None, seen(stored)) == {"parents": [entry("gw", controller=OTHER)]}
    assert patch(None, seen({"parents": [entry("gw", controller=OTHER)]})) is None
    assert patch(None, seen()) is None


def test_one_entry_of_ours_is_left_of_two_for_the_same_parent() -> None:
    twice = [entry("gw", condition(), condition("ResolvedRefs"))] * 2
    assert patch(route("gw"), seen({"parents": twice})) == {"parents": twice[:1]}


def test_our_old_conditions_go_and_those_of_others_stay() -> None:
    stale, theirs = condition("PartiallyInvalid"), condition("example.com/Audited", reason="Yes")
    stored = {"parents": [entry("gw", condition(), stale, theirs, condition("ResolvedRefs"))]}
    (written,) = patch(route("gw"), seen(stored))["parents"]
    assert [c["type"] for c in written["conditions"]] == ["Accepted", "ResolvedRefs", "example.com/Audited"]
    assert written["conditions"][2] == theirs


def test_a_policy_has_ancestors() -> None:
    wanted = PolicyStatus(ancestors=route("gw").parents)
    (written,) = patch(wanted, seen())["ancestors"]
    assert written["ancestorRef"]["name"] == "gw"
    stored = {"ancestors": [entry("gw", condition(), condition("ResolvedRefs"), ref="ancestorRef")]}
    assert patch(wanted, seen(stored)) is None
    assert patch(None, seen(stored)) == {"ancestors": []}


def test_our_ancestors_push_out_nobody() -> None:
    theirs = [entry(str(number), controller=OTHER, ref="ancestorRef") for number in range(14)]
    wanted = PolicyStatus(ancestors=route(*"abcd").parents)
    written = patch(wanted, seen({"ancestors": theirs}))["ancestors"]
    assert written[:14] == theirs
    assert [item["ancestorRef"]["name"] for item in written[14:]] == ["a", "b"]
    assert patch(wanted, seen({"ancestors": written})) is None


def test_our_parents_push_out_nobody() -> None:
    theirs = [entry(str(number), controller=OTHER) for number in range(32)]
    assert patch(route("gw"), seen({"parents": theirs})) is None


# --- Gateways, ListenerSets, classes -------------------------------------------------------------------------------

PENDING = [
    condition(kind, "Unknown", "1970-01-01T00:00:00Z", reason="Pending", message="Waiting for controller")
    for kind in ("Accepted", "Programmed")
]


def stored_gateway() -> dict[str, Any]:
    return {
        "addresses": [{"type": "IPAddress", "value": "10.0.0.1"}],
        "attachedListenerSets": 1,
        "conditions": [condition()],
        "listeners": [
            {
                "name": "http",
                "attachedRoutes": 2,
                "conditions": [condition()],
                "supportedKinds": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}],
            }
        ],
    }


def test_the_defaults_of_a_new_gateway_are_replaced() -> None:
    written = patch(GATEWAY, seen({"conditions": PENDING}))
    assert written == {
        "addresses": [{"type": "IPAddress", "value": "10.0.0.1"}],
        "attachedListenerSets": 1,
        "conditions": [condition(at=NOW)],
        "listeners": [
            {
                "name": "http",
                "attachedRoutes": 2,
                "conditions": [condition(at=NOW)],
                "supportedKinds": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}],
            }
        ],
    }


def test_a_gateway_that_says_so_already_is_left_alone() -> None:
    assert patch(GATEWAY, seen(stored_gateway())) is None


def test_only_the_fields_that_change_are_sent() -> None:
    more = msgspec.structs.replace(LISTENER, attached_routes=3)
    written = patch(msgspec.structs.replace(GATEWAY, listeners=(more,)), seen(stored_gateway()))
    assert list(written) == ["listeners"]
    assert written["listeners"][0]["attachedRoutes"] == 3
    assert written["listeners"][0]["conditions"] == [condition()]


def test_addresses_that_are_gone_are_removed() -> None:
    wanted = msgspec.structs.replace(GATEWAY, addresses=())
    assert patch(wanted, seen(stored_gateway())) == {"addresses": None}


def test_conditions_of_others_survive_in_gateway_and_listener() -> None:
    theirs = condition("example.com/Scanned", at=THEN)
    stored = stored_gateway()
    stored["conditions"] = [theirs, condition(status="False")]
    stored["listeners"][0]["conditions"] = [theirs]
    written = patch(GATEWAY, seen(stored))
    assert written["conditions"] == [condition(at=NOW), theirs]
    assert written["listeners"][0]["conditions"] == [condition(at=NOW), theirs]


def test_a_listener_that_is_gone_leaves_no_status() -> None:
    stored = stored_gateway()
    stored["listeners"].append(stored["listeners"][0] | {"name": "gone"})
    assert [listener["name"] for listener in patch(GATEWAY, seen(stored))["listeners"]] == ["http"]


def test_conditions_of_others_take_no_room_that_is_not_there() -> None:
    theirs = [condition(f"example.com/C{number}") for number in range(7)]
    wanted = GatewayStatus(conditions=(REFS, ACCEPTED))
    written = patch(wanted, seen({"conditions": theirs}))["conditions"]
    assert [c["type"] for c in written] == ["Accepted", *(c["type"] for c in theirs)]
    assert patch(wanted, seen({"conditions": written})) is None


def test_what_is_no_address_is_not_sent() -> None:
    values = ("IPAddress", "300.1.1.1"), ("IPAddress", "fe80::1%lo"), ("Hostname", "UPPER"), ("Hostname", "lb.example")
    wanted = GatewayStatus(addresses=tuple(StatusAddress(type=kind, value=value) for kind, value in values))
    assert patch(wanted, seen()) == {"addresses": [{"type": "Hostname", "value": "lb.example"}]}


def test_long_messages_are_cut_and_reasons_are_words() -> None:
    long = Condition(type="Accepted", status=False, reason="No such thing", message="é" * 40000, observed_generation=1)
    (written,) = patch(GatewayStatus(conditions=(long,)), seen())["conditions"]
    assert (len(written["message"]), written["reason"]) == (32768, "Unknown")
    assert patch(GatewayStatus(conditions=(long,)), seen({"conditions": [written]})) is None


def test_a_status_fits_into_an_object() -> None:
    long = Condition(type="Accepted", status=False, reason="Invalid", message="x" * 32768, observed_generation=1)
    kinds = [msgspec.structs.replace(long, type=kind) for kind in OURS]
    listeners = tuple(ListenerStatus(name=f"l{n}", conditions=tuple(kinds)) for n in range(64))
    body = build_patch(GatewayStatus(listeners=listeners), seen(), controller=OURSELVES, now=NOW)
    assert body is not None
    assert len(body) < 2**20
    assert len(json.loads(body)["status"]["listeners"]) == 64


def test_a_gateway_given_to_another_class_loses_what_still_reads_as_ours() -> None:
    assert patch(None, seen(stored_gateway()), last=GATEWAY) == {
        "addresses": None,
        "attachedListenerSets": None,
        "conditions": None,
        "listeners": None,
    }


def test_a_gateway_that_somebody_else_speaks_for_is_left_alone() -> None:
    stored = stored_gateway()
    stored["conditions"] = [condition(observedGeneration=2)]
    assert patch(None, seen(stored), last=GATEWAY) is None
    assert patch(None, seen(stored_gateway())) is None


def test_what_others_say_of_a_parting_gateway_stays() -> None:
    theirs = condition("example.com/Scanned")
    stored = stored_gateway()
    stored["conditions"].append(theirs)
    stored["listeners"][0]["conditions"].append(theirs)
    stored["addresses"] = [{"type": "IPAddress", "value": "10.9.9.9"}]
    assert patch(None, seen(stored), last=GATEWAY) == {"conditions": [theirs], "attachedListenerSets": None}


def test_a_listener_set_has_no_fields_of_a_gateway() -> None:
    assert list(patch(GatewayStatus(conditions=(ACCEPTED,), listeners=(LISTENER,)), seen())) == [
        "conditions",
        "listeners",
    ]


def test_a_class_is_accepted_and_left_when_it_is_not_ours() -> None:
    wanted = ClassStatus(conditions=(ACCEPTED,), supported_features=("A", "B"))
    written = patch(wanted, seen({"conditions": PENDING[:1]}))
    assert written == {"conditions": [condition(at=NOW)], "supportedFeatures": [{"name": "A"}, {"name": "B"}]}
    written["supportedFeatures"].reverse()
    assert patch(wanted, seen(written)) is None
    assert patch(None, seen(written), last=wanted) is None


def test_a_status_is_about_one_generation() -> None:
    assert generation_of(None) == generation_of(RouteStatus()) == generation_of(GatewayStatus()) == 0
    assert generation_of(route("gw")) == generation_of(GATEWAY) == 1
    assert generation_of(PolicyStatus(ancestors=route("gw").parents)) == 1
    assert generation_of(ClassStatus(conditions=(ACCEPTED,))) == 1


# --- What must hold for all of them --------------------------------------------------------------------------------

_names = st.sampled_from(["a", "b", "c", "d"])
_stored_conditions = st.lists(
    st.builds(
        condition,
        st.sampled_from(["Accepted", "ResolvedRefs", "Conflicted", "example.com/A", "example.com/B"]),
        st.sampled_from(["True", "False", "Unknown"]),
    ),
    max_size=8,
    unique_by=lambda c: c["type"],
)
_entries = st.lists(
    st.builds(
        lambda name, conditions, controller: entry(name, *conditions, controller=controller),
        _names,
        _stored_conditions,
        st.sampled_from([OURSELVES, OTHER, "a.b/c"]),
    ),
    max_size=32,
)
_wanted_conditions = st.lists(st.sampled_from([ACCEPTED, REFUSED, REFS]), unique_by=lambda c: c.type, min_size=1)


@given(
    _entries,
    st.none()
    | st.builds(lambda n, c: route(*n, conditions=tuple(c)), st.lists(_names, unique=True), _wanted_conditions),
)
def test_one_patch_is_enough_and_others_do_not_notice(stored: list[Any], wanted: RouteStatus | None) -> None:
    before = seen({"parents": stored})
    body = build_patch(wanted, before, controller=OURSELVES, now=NOW)
    after = before if body is None else merged(before, body)
    assert build_patch(wanted, after, controller=OURSELVES, now="2030-01-01T00:00:00Z") is None
    parents = json.loads(after.status)["parents"]
    assert [p for p in parents if p["controllerName"] != OURSELVES] == [
        p for p in stored if p["controllerName"] != OURSELVES
    ]
    assert len(parents) <= 32
    assert all(1 <= len(p["conditions"]) <= 8 for p in parents if p["controllerName"] == OURSELVES)


@given(_stored_conditions, _stored_conditions, _wanted_conditions)
def test_one_patch_is_enough_for_a_gateway(stored: list[Any], inner: list[Any], wanted: list[Condition]) -> None:
    listener = ListenerStatus(name="http", conditions=tuple(wanted))
    status = GatewayStatus(conditions=tuple(wanted), listeners=(listener,))
    before = seen({"conditions": stored, "listeners": [{"name": "http", "attachedRoutes": 0, "conditions": inner}]})
    body = build_patch(status, before, controller=OURSELVES, now=NOW)
    after = before if body is None else merged(before, body)
    assert build_patch(status, after, controller=OURSELVES, now="2030-01-01T00:00:00Z") is None
    held = json.loads(after.status)
    for was, is_now in ((stored, held["conditions"]), (inner, held["listeners"][0]["conditions"])):
        assert [c for c in is_now if "/" in c["type"]] == [c for c in was if "/" in c["type"]]
        assert len(is_now) <= 8


def test_every_type_of_condition_that_is_ever_written_is_known_as_ours() -> None:
    golden = Path(__file__).parent.parent.parent / "golden"
    types = {
        kind
        for path in golden.rglob("status.yaml")
        for document in yaml.load_all(path.read_text(), yaml.CSafeLoader)
        for kind in _types(document)
    }
    assert len(types) > 4
    assert {kind for kind in types if kind not in OURS and not re.match(r"meshgw\.dev/", kind)} == set()


def _types(node: Any) -> set[str]:
    if isinstance(node, list):
        return {kind for item in node for kind in _types(item)}
    if not isinstance(node, dict):
        return set()
    own = {item["type"] for item in node.get("conditions") or ()}
    return own | {kind for value in node.values() for kind in _types(value)}
