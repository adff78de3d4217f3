from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

from meshgw.api.core import ConfigMap, EndpointSlice, Node, Pod, Secret, Service
from meshgw.api.meta import ObjectMeta

META = {"metadata": {"name": "a"}}


def convert(struct: type[Any], **document: Any) -> Any:
    return msgspec.convert({**META, **document}, struct)


def test_a_service_has_its_defaults() -> None:
    spec = convert(Service, spec={"ports": [{"port": 80}]}).spec
    port = spec.ports[0]
    assert (spec.type, spec.session_affinity, spec.internal_traffic_policy) == ("ClusterIP", "None", "Cluster")
    assert (port.name, port.protocol, port.app_protocol) == ("", "TCP", None)


def test_a_service_reads_its_addresses() -> None:
    service = convert(
        Service,
        spec={"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "externalIPs": ["1.1.1.1"]},
        status={"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}]}},
    )
    assert (service.spec.cluster_ip, service.spec.cluster_ips) == ("10.0.0.1", ("10.0.0.1",))
    assert service.spec.external_ips == ("1.1.1.1",)
    assert service.status.load_balancer.ingress[0].ip == "2.2.2.2"


@pytest.mark.parametrize("value", [8080, "http"])
def test_a_target_port_is_a_number_or_a_name(value: object) -> None:
    assert convert(Service, spec={"ports": [{"port": 80, "targetPort": value}]}).spec.ports[0].target_port == value


def test_an_endpoint_without_conditions_is_ready() -> None:
    endpoints = convert(EndpointSlice, addressType="IPv4", endpoints=[{"addresses": ["10.0.0.1"]}], ports=[{}])
    conditions = endpoints.endpoints[0].conditions
    assert (conditions.ready, conditions.serving, conditions.terminating) == (True, None, False)
    assert (endpoints.ports[0].protocol, endpoints.ports[0].port) == ("TCP", None)


def test_a_pod_reads_its_identity_and_addresses() -> None:
    pod = convert(Pod, spec={"nodeName": "n"}, status={"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]})
    assert (pod.spec.service_account_name, pod.spec.node_name) == ("default", "n")
    assert (pod.status.pod_ip, pod.status.pod_ips[0].ip) == ("10.0.0.1", "10.0.0.1")


def test_a_heartbeat_makes_no_new_node() -> None:
    first = convert(Node, status={"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "1"}]})
    second = convert(Node, status={"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2"}]})
    assert first == second


def test_data_is_decoded_from_base64() -> None:
    assert convert(Secret, data={"tls.key": "aGk="}).data == {"tls.key": b"hi"}
    assert convert(ConfigMap, binaryData={"a": "aGk="}).binary_data == {"a": b"hi"}


def test_no_representation_of_a_secret_shows_its_data() -> None:
    secret = Secret(
        metadata=ObjectMeta(name="a", namespace="b"), data={"tls.key": b"hunter2"}, string_data={"other": "hunter2"}
    )
    out = io.StringIO()
    Console(file=out, width=200).print([secret])
    shown = repr(secret) + str(secret) + repr({"x": [secret]}) + out.getvalue()
    assert "hunter2" not in shown
    assert "tls.key" in repr(secret)
    assert "other" in out.getvalue()
