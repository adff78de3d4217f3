from __future__ import annotations

import json
import timeit
from typing import Any

import msgspec
import pytest

from meshgw.api.decode import decode
from meshgw.api.http import HTTPRoute
from meshgw.api.istio import AuthorizationPolicy
from meshgw.api.meta import Key, ObjectRef
from meshgw.api.registry import KINDS

GATEWAY = "gateway.networking.k8s.io/v1"
LISTENERS = [{"name": "http", "port": 80, "protocol": "HTTP"}]
BACKENDS = {"rules": [{"backendRefs": [{"name": "a", "port": 1}]}]}
SPECS: dict[str, dict[str, Any]] = {
    "EndpointSlice": {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]},
    "GatewayClass": {"spec": {"controllerName": "a.b/c"}},
    "Gateway": {"spec": {"gatewayClassName": "c", "listeners": LISTENERS}},
    "ListenerSet": {"spec": {"parentRef": {"name": "g"}, "listeners": LISTENERS}},
    "HTTPRoute": {"spec": {"parentRefs": [{"name": "g"}], **BACKENDS}},
    "GRPCRoute": {"spec": {"rules": [{"matches": [{"method": {"service": "a.B"}}]}]}},
    "TLSRoute": {"spec": {"hostnames": ["a.b"], **BACKENDS}},
    "TCPRoute": {"spec": BACKENDS},
    "UDPRoute": {"spec": BACKENDS},
    "ReferenceGrant": {
        "spec": {"from": [{"group": "", "kind": "Service", "namespace": "a"}], "to": [{"group": "", "kind": "Secret"}]}
    },
    "BackendTLSPolicy": {
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "a"}],
            "validation": {"hostname": "a.b", "wellKnownCACertificates": "System"},
        }
    },
    "AuthorizationPolicy": {"spec": {"rules": [{"from": [{"source": {"principals": ["a"]}}]}]}},
}


def document(kind: str, **changes: Any) -> dict[str, Any]:
    known = next(known for known in KINDS if known.name == kind)
    metadata = {"name": "a", "namespace": "b"} if known.namespaced else {"name": "a"}
    return {"apiVersion": known.api_version, "kind": kind, "metadata": metadata, **SPECS.get(kind, {}), **changes}


def problem(raw: Any) -> tuple[str, str]:
    decoded = decode(raw)
    assert decoded.object is None
    (found,) = decoded.problems
    return found.field, found.message


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_every_kind_survives_a_round_trip(kind: str) -> None:
    raw = document(kind)
    first = decode(raw)
    assert first.problems == ()
    assert first.unknown_fields == ()
    assert first.object is not None
    again = decode({**raw, **msgspec.to_builtins(first.object)})
    assert again.object == first.object
    assert decode(json.dumps(raw)).object == first.object
    assert decode(json.dumps(raw).encode()) == first


def test_an_object_comes_with_its_identity() -> None:
    decoded = decode(document("HTTPRoute"))
    assert isinstance(decoded.object, HTTPRoute)
    assert decoded.ref == ObjectRef("HTTPRoute", "b", "a")
    assert decoded.key == Key("b", "a")
    assert decoded.kind is not None
    assert decoded.api_version == GATEWAY


@pytest.mark.parametrize("version", ["v1beta1", "v1"])
def test_an_older_version_is_the_same_object(version: str) -> None:
    assert decode(document("HTTPRoute", apiVersion=f"gateway.networking.k8s.io/{version}")).object is not None


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ([], ""),
        (None, ""),
        ("{", ""),
        (b"\xff", ""),
        ("[" * 100_000, ""),
        (3, ""),
        ("[]", ""),
        ({}, "apiVersion"),
        ({"apiVersion": "v1"}, "kind"),
        ({"apiVersion": 1, "kind": "Service"}, "apiVersion"),
        ({"apiVersion": "v1", "kind": ""}, "kind"),
    ],
)
def test_what_is_no_object_is_a_problem_without_a_kind(raw: Any, field: str) -> None:
    decoded = decode(raw)
    assert (decoded.object, decoded.kind) == (None, None)
    assert [found.field for found in decoded.problems] == [field]


@pytest.mark.parametrize(("api_version", "kind"), [("apps/v1", "Deployment"), ("networking.istio.io/v1", "Gateway")])
def test_an_unknown_kind_is_a_value(api_version: str, kind: str) -> None:
    decoded = decode({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}})
    assert (decoded.kind, decoded.object, decoded.problems) == (None, None, ())
    assert decoded.ref == ObjectRef(kind, "", "a")


def test_a_version_that_is_not_served_is_a_problem_of_that_object() -> None:
    decoded = decode(document("HTTPRoute", apiVersion="gateway.networking.k8s.io/v2"))
    assert str(decoded.problems[0]) == (
        "HTTPRoute b/a: apiVersion: gateway.networking.k8s.io/v2 is not served; use gateway.networking.k8s.io/v1"
    )
    assert decode({"apiVersion": "v2", "kind": "Namespace", "metadata": {"name": "a"}}).ref.key == Key("", "a")


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"rules": {}}, "spec.rules", "Expected `array`, got `object`"),
        ({"rules": []}, "spec.rules", "Expected `array` of length >= 1"),
        (
            {"rules": [{"matches": [{"path": {"type": "Prefix"}}]}]},
            "spec.rules[0].matches[0].path.type",
            "Invalid enum value 'Prefix'",
        ),
        ({"rules": [{"backendRefs": [{"port": 1}]}]}, "spec.rules[0].backendRefs[0].name", "is required"),
        (
            {"rules": [{"backendRefs": [{"name": "a", "port": 0}]}]},
            "spec.rules[0].backendRefs[0].port",
            "Expected `int` >= 1",
        ),
        (
            {"rules": [{"backendRefs": [{"name": "a", "port": 65536}]}]},
            "spec.rules[0].backendRefs[0].port",
            "Expected `int` <= 65535",
        ),
        (
            {"rules": [{"backendRefs": [{"name": "a", "port": "80"}]}]},
            "spec.rules[0].backendRefs[0].port",
            "Expected `int | null`, got `str`",
        ),
        ({"hostnames": ["A"]}, "spec.hostnames[0]", "must be a lower-case host name, optionally with a leading `*.`"),
        ({"rules": [None]}, "spec.rules[0]", "Expected `object`, got `null`"),
        (
            {"rules": [{"matches": [{"headers": [{"name": "a", "value": "b\nc"}]}]}]},
            "spec.rules[0].matches[0].headers[0].value",
            "must be a header value: printable ASCII without blanks at its ends",
        ),
        (
            {"rules": [{"timeouts": {"request": "1"}}]},
            "spec.rules[0].timeouts.request",
            "must be a duration such as `1h30m`, `10s` or `500ms`",
        ),
        ({"rules": [{"retry": {"codes": [200]}}]}, "spec.rules[0].retry.codes[0]", "Expected `int` >= 400"),
        ([], "spec", "Expected `object`, got `array`"),
        ({1: 2}, "spec", "key: Expected `str`"),
        (None, "spec", "is required"),
    ],
)
def test_a_wrong_field_is_named(spec: Any, field: str, message: str) -> None:
    assert problem(document("HTTPRoute", spec=spec)) == (field, message)


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        (None, "metadata"),
        ({}, "metadata.name"),
        ({"name": ""}, "metadata.name"),
        ({"name": "a/b"}, "metadata.name"),
        ({"name": 5}, "metadata.name"),
        ({"name": "a", "namespace": "A"}, "metadata.namespace"),
        ({"name": "a", "labels": {"a": 1}}, "metadata.labels[...]"),
        ({"name": "a", "labels": {1: "a"}}, "metadata.labels"),
    ],
)
def test_wrong_metadata_is_named(metadata: Any, field: str) -> None:
    assert problem(document("HTTPRoute", metadata=metadata))[0] == field


def test_a_problem_of_several_fields_keeps_the_identity() -> None:
    spec = {"rules": [{"matches": [{"path": {"value": "a"}}]}]}
    decoded = decode(document("HTTPRoute", spec=spec))
    assert decoded.object is None
    assert [str(found) for found in decoded.problems] == [
        "HTTPRoute b/a: spec.rules[0].matches[0].path.value: must start with `/`"
    ]
    assert decoded.kind is not None


def test_null_is_absent() -> None:
    spec = {"hostnames": None, "rules": [{"backendRefs": None, "matches": [{"path": None}]}]}
    assert decode(document("HTTPRoute", spec=spec)).object == decode(document("HTTPRoute", spec={})).object
    assert decode(document("EndpointSlice", endpoints=None)).object is not None


def test_base64_may_have_line_breaks() -> None:
    decoded = decode(document("Secret", data={"a": "aG\n k=\n", "b": None}))
    assert decoded.object is not None
    assert decoded.object.data == {"a": b"hi"}  # type: ignore[attr-defined]  # a Secret
    assert problem(document("Secret", data={"a": "hunter2!"})) == ("data[...]", "Invalid base64 encoded string")
    assert problem(document("Secret", data=["hunter2"])) == ("data", "Expected `object`, got `array`")
    assert problem(document("Secret", data={"a": 5}))[0] == "data[...]"


def test_unknown_fields_are_reported_and_ignored() -> None:
    decoded = decode(document("HTTPRoute", spec={"host": "a"}, extra=1, status={"x": 1}))
    assert decoded.object is not None
    assert decoded.unknown_fields == ("spec.host", "extra")


def test_fields_of_partly_modelled_kinds_are_not_unknown() -> None:
    decoded = decode(document("Pod", spec={"containers": [{"name": "a", "image": "b"}], "volumes": []}))
    assert decoded.object is not None
    assert decoded.unknown_fields == ()


def test_a_policy_remembers_what_was_not_understood() -> None:
    source = {"principals": None, "principal": ["a"]}
    decoded = decode(document("AuthorizationPolicy", spec={"rules": [{"from": [{"source": source}]}]}))
    assert isinstance(decoded.object, AuthorizationPolicy)
    where = "spec.rules[0].from[0].source"
    assert decoded.object.unknown_fields == (f"{where}.principal", f"{where}.principals")
    assert decoded.unknown_fields == (f"{where}.principal",)


def test_a_policy_cannot_say_itself_that_it_was_understood() -> None:
    raw = document("AuthorizationPolicy", spec={"x": 1}, unknownFields=[])
    decoded = decode(raw)
    assert isinstance(decoded.object, AuthorizationPolicy)
    assert decoded.object.unknown_fields == ("spec.x",)


def test_a_policy_without_a_spec_is_understood() -> None:
    raw = document("AuthorizationPolicy")
    del raw["spec"]
    decoded = decode(raw)
    assert isinstance(decoded.object, AuthorizationPolicy)
    assert decoded.object.unknown_fields == ()


def test_decoding_a_route_costs_little() -> None:
    rule = {
        "matches": [
            {"path": {"type": "PathPrefix", "value": "/v2"}, "headers": [{"name": "x-user", "value": "jason"}]}
        ],
        "backendRefs": [{"name": "a", "port": 80, "weight": 90}, {"name": "b", "port": 80, "weight": 10}],
    }
    raw = document("HTTPRoute", spec={"parentRefs": [{"name": "g"}], "hostnames": ["a.b"], "rules": [rule, rule]})
    assert decode(raw).object is not None
    # Ten times what it takes on an idle machine: this catches a change of order, not noise.
    assert min(timeit.repeat(lambda: decode(raw), number=200, repeat=5)) / 200 < 400e-6
