from __future__ import annotations

from typing import Any

import pytest

from meshgw.api.check import check
from meshgw.api.core import ConfigMap
from meshgw.api.decode import decode
from meshgw.api.meta import ObjectMeta

GATEWAY = "gateway.networking.k8s.io/v1"
TLS = {"certificateRefs": [{"name": "c"}]}


def fields(api_version: str, kind: str, **parts: Any) -> list[str]:
    decoded = decode({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}, **parts})
    assert (decoded.object is None) == bool(decoded.problems)
    return [found.field.removeprefix("spec.") for found in decoded.problems]


def service(**spec: Any) -> list[str]:
    return fields("v1", "Service", spec=spec)


def listeners(*items: dict[str, Any], kind: str = "Gateway") -> list[str]:
    defaults = {"port": 80, "protocol": "HTTP"}
    listed = [{"name": f"l{number}", **defaults, **item} for number, item in enumerate(items)]
    extra = {"gatewayClassName": "c"} if kind == "Gateway" else {"parentRef": {"name": "g"}}
    return fields(GATEWAY, kind, spec={"listeners": listed, **extra})


def gateway(**spec: Any) -> list[str]:
    listed = [{"name": "a", "port": 80, "protocol": "HTTP"}]
    return fields(GATEWAY, "Gateway", spec={"gatewayClassName": "c", "listeners": listed, **spec})


def policy(**spec: Any) -> list[str]:
    return fields("security.istio.io/v1", "AuthorizationPolicy", spec=spec)


def backend_tls(validation: dict[str, Any], *targets: dict[str, Any]) -> list[str]:
    listed = [{"group": "", "kind": "Service", "name": "a", **target} for target in targets or ({},)]
    return fields(
        GATEWAY, "BackendTLSPolicy", spec={"targetRefs": listed, "validation": {"hostname": "a.b", **validation}}
    )


def test_kinds_without_such_rules_have_no_problems() -> None:
    assert check(ConfigMap(metadata=ObjectMeta(name="a"))) == ()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"ports": [{"port": 80}]}, []),
        ({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80, "protocol": "UDP"}]}, []),
        ({"ports": [{"port": 80}, {"name": "b", "port": 81}]}, ["ports[0].name"]),
        ({"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]}, ["ports[1].name"]),
        ({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]}, ["ports[1].port"]),
        ({"ports": [{"port": 80, "targetPort": 70000}]}, ["ports[0].targetPort"]),
        ({"type": "ExternalName"}, ["externalName"]),
        ({"type": "ExternalName", "externalName": "a.b"}, []),
    ],
)
def test_the_ports_of_a_service_differ(spec: dict[str, Any], expected: list[str]) -> None:
    assert service(**spec) == expected


@pytest.mark.parametrize(
    ("address_type", "address", "good"),
    [
        ("IPv4", "127.0.0.1", True),
        ("IPv4", "::1", False),
        ("IPv6", "::1", True),
        ("IPv4", "a", False),
        ("FQDN", "a.b", True),
    ],
)
def test_endpoints_have_addresses_of_their_type(address_type: str, address: str, *, good: bool) -> None:
    found = fields(
        "discovery.k8s.io/v1", "EndpointSlice", addressType=address_type, endpoints=[{"addresses": [address]}]
    )
    assert found == ([] if good else ["endpoints[0].addresses[0]"])


@pytest.mark.parametrize("kind", ["Gateway", "ListenerSet"])
@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([{}, {"hostname": "a.b"}, {"port": 81}], []),
        ([{"tls": TLS}], ["listeners[0].tls"]),
        ([{"protocol": "TCP", "tls": TLS}], ["listeners[0].tls"]),
        ([{"protocol": "HTTPS", "tls": TLS}], []),
        ([{"protocol": "HTTPS"}], []),
        ([{"protocol": "HTTPS", "tls": {"mode": "Passthrough"}}], ["listeners[0].tls.mode"]),
        ([{"protocol": "HTTPS", "tls": {}}], ["listeners[0].tls"]),
        ([{"protocol": "HTTPS", "tls": {"options": {"a": "b"}}}], []),
        ([{"protocol": "TLS"}], ["listeners[0].tls"]),
        ([{"protocol": "TLS", "tls": {"mode": "Passthrough"}}], []),
        ([{"protocol": "UDP", "hostname": "a.b"}], ["listeners[0].hostname"]),
        ([{}, {"name": "l0", "port": 81}], ["listeners[1].name"]),
        ([{"hostname": "a.b"}, {"hostname": "a.b"}], ["listeners[1]"]),
        ([{}, {}], ["listeners[1]"]),
    ],
)
def test_listeners_are_consistent(items: list[dict[str, Any]], expected: list[str], kind: str) -> None:
    assert listeners(*items, kind=kind) == expected


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ([{"value": "1.1.1.1"}, {}, {}], []),
        ([{"value": "1.1.1.1"}, {"value": "1.1.1.1"}], ["addresses[1].value"]),
        ([{"type": "Hostname", "value": "a.b"}, {"type": "Hostname", "value": "a.b"}], ["addresses[1].value"]),
        ([{"type": "Hostname", "value": "a_b"}], ["addresses[0].value"]),
        ([{"type": "NamedAddress", "value": "a"}, {"type": "NamedAddress", "value": "a"}], []),
    ],
)
def test_addresses_differ(addresses: list[dict[str, Any]], expected: list[str]) -> None:
    assert gateway(addresses=addresses) == expected


@pytest.mark.parametrize(
    ("infrastructure", "expected"),
    [
        ({"labels": {"a.b/c": "d"}, "annotations": {"x": "y"}}, []),
        ({"labels": {"a b": "d"}}, ["infrastructure.labels"]),
        ({"annotations": {"/x": "y"}}, ["infrastructure.annotations"]),
        ({"annotations": {f"{'a.' * 126}aa/x": "y"}}, ["infrastructure.annotations"]),
    ],
)
def test_infrastructure_keys_are_keys(infrastructure: dict[str, Any], expected: list[str]) -> None:
    assert gateway(infrastructure=infrastructure) == expected


def test_a_port_has_one_tls_configuration() -> None:
    frontend = {"default": {}, "perPort": [{"port": 443, "tls": {}}, {"port": 443, "tls": {}}]}
    assert gateway(tls={"frontend": frontend}) == ["tls.frontend.perPort[1].port"]
    assert gateway(tls={"backend": {}}) == []


@pytest.mark.parametrize(
    ("validation", "expected"),
    [
        ({"wellKnownCACertificates": "System"}, []),
        ({}, ["validation"]),
        (
            {
                "wellKnownCACertificates": "System",
                "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "a"}],
            },
            ["validation"],
        ),
        (
            {
                "wellKnownCACertificates": "System",
                "subjectAltNames": [{"type": "Hostname", "hostname": "a"}, {"type": "URI", "uri": "a://b"}],
            },
            [],
        ),
        (
            {"wellKnownCACertificates": "System", "subjectAltNames": [{"type": "Hostname"}]},
            ["validation.subjectAltNames[0].hostname"],
        ),
        (
            {
                "wellKnownCACertificates": "System",
                "subjectAltNames": [{"type": "URI", "uri": "a://b", "hostname": "a"}],
            },
            ["validation.subjectAltNames[0].hostname"],
        ),
    ],
)
def test_backend_tls_has_one_source_of_trust(validation: dict[str, Any], expected: list[str]) -> None:
    assert backend_tls(validation) == expected


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([{}, {"name": "b"}, {"name": "c", "sectionName": "x"}, {"name": "c", "sectionName": "y"}], []),
        ([{}, {}], ["targetRefs[1]"]),
        ([{}, {"sectionName": "x"}], ["targetRefs[1].sectionName"]),
    ],
)
def test_targets_differ(targets: list[dict[str, Any]], expected: list[str]) -> None:
    assert backend_tls({"wellKnownCACertificates": "System"}, *targets) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"selector": {"matchLabels": {"a": "b"}}}, []),
        ({"targetRefs": [{"kind": "Service", "name": "a"}]}, []),
        ({"selector": {}, "targetRefs": [{"kind": "Service", "name": "a"}]}, ["spec"]),
        ({"targetRef": {"kind": "Service", "name": "a"}, "targetRefs": [{"kind": "Service", "name": "a"}]}, ["spec"]),
        ({"selector": {"matchLabels": {"a": "*"}}}, ["selector.matchLabels"]),
        ({"selector": {"matchLabels": {"": "a"}}}, ["selector.matchLabels"]),
        (
            {"rules": [{"from": [{"source": {"serviceAccounts": ["a"], "namespaces": ["b"]}}]}]},
            ["rules[0].from[0].source"],
        ),
        ({"rules": [{"from": [{"source": {"serviceAccounts": ["a"], "ipBlocks": ["b"]}}]}]}, []),
        ({"targetRefs": [{"kind": "Service", "name": "a", "namespace": "b"}]}, ["targetRefs[0].namespace"]),
        ({"action": "REJECT"}, ["action"]),
        ({"rules": [{"when": [{"values": ["a"]}]}]}, ["rules[0].when[0].key"]),
    ],
)
def test_a_policy_is_consistent(spec: dict[str, Any], expected: list[str]) -> None:
    assert policy(**spec) == expected
