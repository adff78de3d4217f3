from __future__ import annotations

import pytest

from meshgw.ir.gateway import Role, WaypointFor
from meshgw.resolve import tables as t
from tests.unit.resolve.graph import change, codes, config_map, gateway, grant, resolve, secret, shown

GATEWAY = """
kind: Gateway
metadata: {{name: gw, generation: 7, labels: {labels}}}
spec:
  gatewayClassName: {class_name}
  listeners: [{{name: http, port: 80, protocol: HTTP}}]
"""
GOOD = {"Accepted": "True/Accepted", "ResolvedRefs": "True/ResolvedRefs"}


def text(extra: str = "", *, labels: str = "{}", class_name: str = "meshgw") -> str:
    return GATEWAY.format(labels=labels, class_name=class_name) + extra


def client_certificate(ref: str) -> str:
    return text(f"  tls: {{backend: {{clientCertificateRef: {ref}}}}}\n")


def test_a_plain_gateway_is_accepted_in_its_generation() -> None:
    row = gateway(resolve(text()))
    assert (row.accepted, row.role, row.class_name) == (True, Role.INGRESS, "meshgw")
    assert (row.generation, row.service_account, row.findings) == (7, "gw", ())
    assert shown(row.conditions) == GOOD
    assert {condition.observed_generation for condition in row.conditions} == {7}


def test_every_condition_follows_the_generation() -> None:
    graph = resolve(text())
    change(graph, text().replace("generation: 7", "generation: 8"))
    assert {condition.observed_generation for condition in gateway(graph).conditions} == {8}


def test_what_routes_and_clusters_read_does_not_follow_the_generation() -> None:
    graph = resolve(text())
    delta = change(graph, text().replace("generation: 7", "generation: 8"))
    assert delta.changed(t.OUR_GATEWAYS)
    assert not delta.changed(t.GATEWAY_PROFILES)
    delta = change(graph, text(labels="{meshgw.dev/role: egress}"))
    assert delta.changed(t.GATEWAY_PROFILES)


def test_the_gateways_label_beats_its_class() -> None:
    row = gateway(resolve(text(labels="{meshgw.dev/role: egress}", class_name="meshgw-waypoint")))
    assert row.role is Role.EGRESS


def test_an_unknown_role_refuses_the_gateway() -> None:
    row = gateway(resolve(text(labels="{meshgw.dev/role: sidecar}")))
    assert (row.accepted, row.role) == (False, None)
    assert shown(row.conditions)["Accepted"] == "False/Invalid"
    assert codes(row.findings) == ["MG1009"]


def test_the_service_account_is_a_label() -> None:
    assert gateway(resolve(text(labels="{meshgw.dev/service-account: edge}"))).service_account == "edge"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("{}", WaypointFor.WORKLOAD),
        ("{istio.io/waypoint-for: all}", WaypointFor.ALL),
        ("{istio.io/waypoint-for: none}", WaypointFor.NONE),
    ],
)
def test_waypoint_for_comes_from_the_gateway_then_its_class(labels: str, expected: WaypointFor) -> None:
    declared = """
---
kind: GatewayClass
metadata: {name: wp, labels: {meshgw.dev/role: waypoint, istio.io/waypoint-for: workload}}
spec: {controllerName: meshgw.dev/gateway-controller}
"""
    assert gateway(resolve(text(labels=labels, class_name="wp") + declared)).waypoint_for is expected


def test_waypoint_for_is_service_by_default_and_a_misspelt_one_refuses_the_waypoint() -> None:
    assert gateway(resolve(text(class_name="meshgw-waypoint"))).waypoint_for is WaypointFor.SERVICE
    row = gateway(resolve(text(labels="{istio.io/waypoint-for: wrkload}", class_name="meshgw-waypoint")))
    assert shown(row.conditions)["Accepted"] == "False/Invalid"
    ingress = gateway(resolve(text(labels="{istio.io/waypoint-for: wrkload}")))
    assert ingress.accepted


def test_unknown_parameters_refuse_the_gateway() -> None:
    row = gateway(resolve(text("  infrastructure: {parametersRef: {group: x.io, kind: Thing, name: a}}\n")))
    assert not row.accepted
    assert shown(row.conditions) == {**GOOD, "Accepted": "False/InvalidParameters"}
    assert codes(row.findings) == ["MG7001"]


def test_infrastructure_without_parameters_is_fine() -> None:
    assert gateway(resolve(text("  infrastructure: {labels: {a: b}}\n"))).accepted


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("{type: IPAddress, value: 127.0.0.9}", "True/Accepted"),
        ("{value: 127.0.0.9}", "True/Accepted"),
        ("{type: IPAddress}", "True/Accepted"),
        ("{type: Hostname, value: a.example.com}", "True/Accepted"),
        ("{type: NamedAddress, value: a}", "False/UnsupportedAddress"),
        ("{type: test/fake-invalid-type, value: a}", "False/UnsupportedAddress"),
    ],
)
def test_address_types(address: str, reason: str) -> None:
    row = gateway(resolve(text(f"  addresses: [{address}]\n")))
    assert shown(row.conditions)["Accepted"] == reason
    assert row.accepted is (reason == "True/Accepted")


def test_a_good_client_certificate_is_named() -> None:
    row = gateway(resolve(client_certificate("{name: client}") + secret("client")))
    assert (row.client_certificate, row.client_certificate_refused) == ("certificate/default/client", False)
    assert shown(row.conditions) == GOOD


MALFORMED = (
    "---\n{kind: Secret, metadata: {name: bad}, type: kubernetes.io/tls, data: {tls.crt: SGVsbG8=, tls.key: SGVsbG8=}}"
)


@pytest.mark.parametrize(
    ("ref", "reason", "code"),
    [
        ("{name: absent}", "InvalidClientCertificateRef", "MG3001"),
        ("{name: bad}", "InvalidClientCertificateRef", "MG3001"),
        ("{name: client, group: wrong.io}", "InvalidClientCertificateRef", "MG2003"),
        ("{name: client, kind: ConfigMap}", "InvalidClientCertificateRef", "MG2003"),
        ("{name: client, namespace: other}", "RefNotPermitted", "MG2002"),
    ],
)
def test_a_bad_client_certificate_leaves_the_gateway_accepted(ref: str, reason: str, code: str) -> None:
    row = gateway(resolve(client_certificate(ref) + secret("client") + secret("client", "other") + MALFORMED))
    assert row.accepted
    assert (row.client_certificate, row.client_certificate_refused) == ("", True)
    assert shown(row.conditions) == {"Accepted": "True/Accepted", "ResolvedRefs": f"False/{reason}"}
    assert codes(row.findings) == [code]


def test_a_grant_permits_a_client_certificate_of_another_namespace_while_it_lasts() -> None:
    graph = resolve(client_certificate("{name: client, namespace: other}") + secret("client", "other"))
    change(graph, grant("other", kind="Gateway", source="default"))
    assert gateway(graph).client_certificate == "certificate/other/client"
    ((key, _row),) = graph.rows(t.REFERENCE_GRANTS).items()
    change(graph, facts={t.REFERENCE_GRANTS: {key: None}})
    assert gateway(graph).client_certificate_refused


def test_a_client_certificate_is_found_when_it_appears() -> None:
    graph = resolve(client_certificate("{name: client}"))
    assert gateway(graph).client_certificate_refused
    change(graph, secret("client"))
    assert gateway(graph).client_certificate


VALIDATION = "{{mode: {mode}, caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]}}"


@pytest.mark.parametrize(
    ("default", "port", "fields"),
    [
        ("AllowValidOnly", "AllowValidOnly", 0),
        ("AllowInsecureFallback", "AllowValidOnly", 1),
        ("AllowValidOnly", "AllowInsecureFallback", 1),
        ("AllowInsecureFallback", "AllowInsecureFallback", 2),
    ],
)
def test_insecure_client_validation_is_announced(default: str, port: str, fields: int) -> None:
    frontend = f"""
  tls:
    frontend:
      default: {{validation: {VALIDATION.format(mode=default)}}}
      perPort: [{{port: 8443, tls: {{validation: {VALIDATION.format(mode=port)}}}}}, {{port: 9443, tls: {{}}}}]
"""
    row = gateway(resolve(text(frontend) + config_map("ca")))
    insecure = {"InsecureFrontendValidationMode": "True/ConfigurationChanged"} if fields else {}
    assert shown(row.conditions) == GOOD | insecure
    assert codes(row.findings) == ["MG3006"] * fields


def test_a_waypoint_without_identity_speaks_of_each_thing_in_its_own_words() -> None:
    frontend = f"  tls: {{frontend: {{default: {{validation: {VALIDATION.format(mode='AllowInsecureFallback')}}}}}}}\n"
    row = gateway(resolve(text(frontend, class_name="meshgw-waypoint") + config_map("ca")))
    messages = {finding.code: finding.message for finding in row.findings}
    assert messages == {
        "MG5004": "a waypoint without a mesh certificate serves nothing",
        "MG3006": "client certificates need not be valid: anyone is let in",
    }


def test_a_gateway_that_leaves_our_class_is_dropped() -> None:
    graph = resolve(text())
    change(graph, text(class_name="another"))
    assert not graph.rows(t.OUR_GATEWAYS)
    assert not graph.rows(t.LISTENERS)
