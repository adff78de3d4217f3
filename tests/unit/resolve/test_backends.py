from __future__ import annotations

import pytest

from meshgw.api.gateway import BackendObjectReference
from meshgw.api.meta import ObjectRef
from meshgw.ir.keys import BackendTarget
from meshgw.ir.route import RefsReason
from meshgw.resolve.backends import GRPC, TCP, UDP, resolve_backend
from meshgw.resolve.report import BadRef, Report
from tests.unit.resolve.route_graph import World, service, web

OTHER = service(namespace="other")
POLICY = """---
kind: BackendTLSPolicy
metadata: {name: p, namespace: default}
spec:
  targetRefs: [{group: '', kind: Service, name: web%s}]
  validation: {hostname: x, wellKnownCACertificates: System}
"""
GRANT = """---
kind: ReferenceGrant
metadata: {name: g, namespace: %s}
spec: {from: [{group: gateway.networking.k8s.io, kind: %s, namespace: default}], to: [{group: '', kind: Service%s}]}
"""


def resolve(text: str, *, protocol: str = "", **ref: object) -> tuple[BackendTarget | BadRef, Report]:
    report = Report(ObjectRef("HTTPRoute", "default", "r"))
    fields: dict[str, object] = {"name": "web", "port": 80} | ref
    reference = BackendObjectReference(**fields)  # type: ignore[arg-type]
    return resolve_backend(World(text).graph, report, "field", reference, protocol), report


def reason(text: str, **options: object) -> RefsReason:
    result, _ = resolve(text, **options)  # type: ignore[arg-type]
    assert isinstance(result, BadRef)
    return result.reason


def test_a_service_port_is_found() -> None:
    assert resolve(service())[0] == web()


def test_the_route_says_what_is_spoken() -> None:
    assert resolve(service(), protocol=GRPC)[0] == web(protocol="grpc")


@pytest.mark.parametrize(("group", "kind"), [("", "Pod"), ("apps", "Service"), ("networking.istio.io", "Hostname")])
def test_only_core_services_are_backends(group: str, kind: str) -> None:
    assert reason(service(), group=group, kind=kind) is RefsReason.INVALID_KIND


def test_an_invalid_kind_is_told_before_a_missing_grant() -> None:
    assert reason("---\nkind: Node\nmetadata: {name: n}", kind="Pod", namespace="other") is RefsReason.INVALID_KIND


def test_a_missing_service_or_port_is_not_found() -> None:
    assert reason(service("else")) is RefsReason.NOT_FOUND
    assert reason(service(), port=81) is RefsReason.NOT_FOUND
    assert reason(service(), port=None) is RefsReason.NOT_FOUND


def test_the_transport_protocol_must_fit() -> None:
    both = service(ports="[{port: 80, name: t}, {port: 80, name: u, protocol: UDP}]")
    assert resolve(both, protocol=UDP)[0] == web(protocol="udp")
    assert resolve(both, protocol=TCP)[0] == web(protocol="tcp")
    assert reason(service(), protocol=UDP) is RefsReason.NOT_FOUND
    assert reason(service(ports="[{port: 80, protocol: UDP}]")) is RefsReason.NOT_FOUND


def test_an_external_name_is_never_a_backend() -> None:
    assert reason(service(more=", type: ExternalName, externalName: localhost")) is RefsReason.INVALID_KIND


def test_another_namespace_needs_a_grant() -> None:
    assert reason(OTHER, namespace="other") is RefsReason.NOT_PERMITTED
    granted = OTHER + GRANT % ("other", "HTTPRoute", "")
    assert resolve(granted, namespace="other")[0] == web(namespace="other")


@pytest.mark.parametrize(
    "grant", [("default", "HTTPRoute", ""), ("other", "GRPCRoute", ""), ("other", "HTTPRoute", ", name: else")]
)
def test_a_grant_counts_only_for_its_place_referrer_and_target(grant: tuple[str, str, str]) -> None:
    assert reason(OTHER + GRANT % grant, namespace="other") is RefsReason.NOT_PERMITTED


def test_nobody_learns_what_another_namespace_holds() -> None:
    there = resolve(OTHER, namespace="other", name="web")[0]
    wrong_port = resolve(OTHER, namespace="other", name="web", port=9)[0]
    absent = resolve(service(), namespace="other", name="web")[0]
    assert there == absent == wrong_port


@pytest.mark.parametrize(
    "spoken", ["http", "grpc", "kubernetes.io/h2c", "kubernetes.io/ws", "example.com/own", "http2"]
)
def test_http_routes_speak_to_these(spoken: str) -> None:
    result, report = resolve(service(ports=f"[{{port: 80, appProtocol: {spoken}}}]"))
    assert result == web()
    assert report.findings == []


def test_unknown_standard_protocols_are_unsupported() -> None:
    text = service(ports="[{port: 80, appProtocol: kubernetes.io/quic}]")
    assert reason(text) is RefsReason.UNSUPPORTED_PROTOCOL
    assert resolve(text, protocol=TCP)[0] == web(protocol="tcp")


def test_websockets_are_not_for_grpc() -> None:
    text = service(ports="[{port: 80, appProtocol: kubernetes.io/ws}]")
    assert reason(text, protocol=GRPC) is RefsReason.UNSUPPORTED_PROTOCOL


def test_secure_websockets_need_a_policy() -> None:
    text = service(ports="[{port: 80, name: ws, appProtocol: kubernetes.io/wss}]")
    assert reason(text) is RefsReason.UNSUPPORTED_PROTOCOL
    assert resolve(text + POLICY % "")[0] == web()
    assert resolve(text + POLICY % ", sectionName: ws")[0] == web()
    assert reason(text + POLICY % ", sectionName: other") is RefsReason.UNSUPPORTED_PROTOCOL


def test_https_without_a_policy_is_remarked_and_used() -> None:
    text = service(ports="[{port: 80, appProtocol: HTTPS}]")
    result, report = resolve(text)
    assert result == web()
    assert [(f.code, f.field) for f in report.findings] == [("MG2008", "field")]
    assert resolve(text + POLICY % "")[1].findings == []
