from __future__ import annotations

from typing import Any

import pytest

from meshgw.api.decode import decode
from meshgw.api.defaults import apply_defaults
from meshgw.api.http import HTTPPathMatch
from meshgw.api.registry import REGISTRY

GATEWAY = "gateway.networking.k8s.io/v1"


def load(api_version: str, kind: str, *, namespace: str | None = None, **parts: Any) -> Any:
    metadata = {"name": "a"} if namespace is None else {"name": "a", "namespace": namespace}
    decoded = decode({"apiVersion": api_version, "kind": kind, "metadata": metadata, **parts})
    assert decoded.problems == ()
    return decoded.object


def route(**spec: Any) -> Any:
    return load(GATEWAY, "HTTPRoute", spec=spec).spec


def gateway(**spec: Any) -> Any:
    listeners = [{"name": "http", "port": 80, "protocol": "HTTP"}]
    return load(GATEWAY, "Gateway", spec={"gatewayClassName": "c", "listeners": listeners, **spec}).spec


def test_a_namespaced_object_is_in_the_default_namespace() -> None:
    assert load("v1", "ConfigMap").key == ("default", "a")
    assert load("v1", "ConfigMap", namespace="").key == ("default", "a")
    assert load("v1", "ConfigMap", namespace="b").key == ("b", "a")


def test_a_cluster_scoped_object_is_in_none() -> None:
    assert load(GATEWAY, "GatewayClass", namespace="b", spec={"controllerName": "a.b/c"}).key == ("", "a")


def test_an_object_is_of_its_first_generation() -> None:
    assert load("v1", "ConfigMap").metadata.generation == 1


def test_a_namespace_carries_its_name_as_a_label() -> None:
    label = {"kubernetes.io/metadata.name": "a"}
    assert load("v1", "Namespace").metadata.labels == label


def test_a_target_port_is_the_port_unless_given() -> None:
    ports = load(
        "v1", "Service", spec={"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81, "targetPort": "x"}]}
    ).spec.ports
    assert [port.target_port for port in ports] == [80, "x"]


def test_string_data_becomes_data_and_wins() -> None:
    secret = load("v1", "Secret", data={"a": "eA==", "b": "eA=="}, stringData={"b": "y", "c": "z"})
    assert secret.data == {"a": b"x", "b": b"y", "c": b"z"}
    assert secret.string_data == {}
    assert secret.type == "Opaque"


def test_a_pod_runs_as_the_default_service_account() -> None:
    assert load("v1", "Pod", spec={"serviceAccountName": ""}).spec.service_account_name == "default"
    assert load("v1", "Pod", spec={"serviceAccountName": "x"}).spec.service_account_name == "x"


def test_a_route_without_rules_matches_every_path() -> None:
    rules = route().rules
    assert len(rules) == 1
    assert [match.path for match in rules[0].matches] == [HTTPPathMatch(type="PathPrefix", value="/")]


@pytest.mark.parametrize(
    "rule", [{}, {"matches": []}, {"matches": None}, {"matches": [{}]}, {"matches": [{"path": {}}]}]
)
def test_a_rule_without_conditions_matches_every_path(rule: dict[str, Any]) -> None:
    assert [match.path.value for match in route(rules=[rule]).rules[0].matches] == ["/"]


def test_parents_are_gateways() -> None:
    parent = route(parentRefs=[{"name": "a"}]).parent_refs[0]
    assert (parent.group, parent.kind, parent.namespace) == ("gateway.networking.k8s.io", "Gateway", None)


def test_backends_are_services_of_weight_one() -> None:
    backend = route(rules=[{"backendRefs": [{"name": "a", "port": 1}]}]).rules[0].backend_refs[0]
    assert (backend.group, backend.kind, backend.weight) == ("", "Service", 1)


def test_matches_are_exact() -> None:
    match = route(
        rules=[{"matches": [{"headers": [{"name": "a", "value": "b"}], "queryParams": [{"name": "a", "value": "b"}]}]}]
    )
    first = match.rules[0].matches[0]
    assert (first.headers[0].type, first.query_params[0].type) == ("Exact", "Exact")


def test_filters_have_their_defaults() -> None:
    filters = [
        {"type": "RequestRedirect", "requestRedirect": {}},
        {"type": "CORS", "cors": {}},
        {
            "type": "RequestMirror",
            "requestMirror": {"backendRef": {"name": "a", "port": 1}, "fraction": {"numerator": 1}},
        },
    ]
    redirect, cors, mirror = route(rules=[{"filters": filters}]).rules[0].filters
    assert redirect.request_redirect.status_code == 302
    assert cors.cors.max_age == 5
    assert mirror.request_mirror.fraction.denominator == 100
    assert mirror.request_mirror.backend_ref.kind == "Service"


def test_a_session_is_kept_by_a_session_cookie() -> None:
    session = route(rules=[{"sessionPersistence": {"cookieConfig": {}}}]).rules[0].session_persistence
    assert (session.type, session.cookie_config.lifetime_type) == ("Cookie", "Session")


def test_listeners_accept_routes_of_their_namespace() -> None:
    assert gateway().listeners[0].allowed_routes.namespaces.from_ == "Same"
    kinds = gateway(
        listeners=[{"name": "a", "port": 1, "protocol": "HTTP", "allowedRoutes": {"kinds": [{"kind": "HTTPRoute"}]}}]
    )
    allowed = kinds.listeners[0].allowed_routes
    assert (allowed.namespaces.from_, allowed.kinds[0].group) == ("Same", "gateway.networking.k8s.io")


@pytest.mark.parametrize("allowed", [None, {}, {"namespaces": {}}])
def test_a_gateway_accepts_no_listener_sets(allowed: object) -> None:
    assert gateway(allowedListeners=allowed).allowed_listeners.namespaces.from_ == "None"


def test_a_listener_terminates_tls_with_a_secret() -> None:
    tls = (
        gateway(listeners=[{"name": "a", "port": 1, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "c"}]}}])
        .listeners[0]
        .tls
    )
    assert (tls.mode, tls.certificate_refs[0].kind, tls.certificate_refs[0].group) == ("Terminate", "Secret", "")


def test_addresses_are_ip_addresses() -> None:
    assert gateway(addresses=[{"value": "1.1.1.1"}]).addresses[0].type == "IPAddress"


def test_client_certificates_must_be_valid() -> None:
    reference = {"group": "", "kind": "ConfigMap", "name": "ca"}
    tls = gateway(tls={"frontend": {"default": {"validation": {"caCertificateRefs": [reference]}}}}).tls
    assert tls.frontend.default.validation.mode == "AllowValidOnly"


def test_a_listener_set_extends_a_gateway() -> None:
    spec = {"parentRef": {"name": "g"}, "listeners": [{"name": "a", "port": 1, "protocol": "HTTP"}]}
    assert load(GATEWAY, "ListenerSet", spec=spec).spec.parent_ref.kind == "Gateway"


def test_a_policy_allows_nothing_by_default() -> None:
    policy = load("security.istio.io/v1", "AuthorizationPolicy")
    assert (policy.spec.action, policy.spec.rules) == ("ALLOW", ())


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("Service", {"spec": {"ports": [{"port": 80}]}}),
        ("Secret", {"stringData": {"a": "b"}}),
        ("Namespace", {}),
        ("Pod", {"spec": {"serviceAccountName": ""}}),
    ],
)
def test_defaults_of_defaults_are_the_same_object(kind: str, parts: dict[str, Any]) -> None:
    known = REGISTRY.by_name(kind)
    assert known is not None
    once = load("v1", kind, **parts)
    assert apply_defaults(known, once) is once
