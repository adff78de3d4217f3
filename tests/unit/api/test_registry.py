from __future__ import annotations

import pytest

from meshgw.api import registry
from meshgw.api.http import HTTPRoute, HTTPRouteSpec
from meshgw.api.meta import ObjectMeta
from meshgw.api.registry import GROUPS, KINDS

GATEWAY = "gateway.networking.k8s.io"


@pytest.mark.parametrize(
    ("api_version", "name"),
    [
        ("v1", "Service"),
        ("v1", "Secret"),
        ("discovery.k8s.io/v1", "EndpointSlice"),
        (f"{GATEWAY}/v1", "Gateway"),
        (f"{GATEWAY}/v1beta1", "Gateway"),
        (f"{GATEWAY}/v1beta1", "HTTPRoute"),
        (f"{GATEWAY}/v1alpha2", "TLSRoute"),
        (f"{GATEWAY}/v1alpha3", "TLSRoute"),
        (f"{GATEWAY}/v1alpha2", "TCPRoute"),
        (f"{GATEWAY}/v1beta1", "ReferenceGrant"),
        (f"{GATEWAY}/v1alpha3", "BackendTLSPolicy"),
        ("security.istio.io/v1beta1", "AuthorizationPolicy"),
    ],
)
def test_served_versions_are_found(api_version: str, name: str) -> None:
    kind = registry.lookup(api_version, name)
    assert kind is not None
    assert str(kind) == name
    assert kind.struct.__name__ == name


@pytest.mark.parametrize(
    ("api_version", "name"),
    [(f"{GATEWAY}/v1beta1", "GRPCRoute"), ("v1", "Gateway"), ("networking.istio.io/v1", "Gateway")],
)
def test_other_versions_are_not(api_version: str, name: str) -> None:
    assert registry.lookup(api_version, name) is None


def test_names_and_plurals_are_unique() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert len({(kind.group, kind.plural) for kind in KINDS}) == len(KINDS)


def test_api_versions_name_the_preferred_version() -> None:
    assert {kind.api_version for kind in KINDS if not kind.group} == {"v1"}
    assert registry.by_name("TLSRoute") is not None
    assert registry.by_name("TLSRoute").api_version == f"{GATEWAY}/v1"  # type: ignore[union-attr]  # asserted above


def test_the_kind_of_an_object_is_found_by_its_struct() -> None:
    route = HTTPRoute(metadata=ObjectMeta(name="a"), spec=HTTPRouteSpec())
    assert registry.kind_of(route).plural == "httproutes"


def test_cluster_scoped_kinds_are_marked() -> None:
    assert {kind.name for kind in KINDS if not kind.namespaced} == {"Namespace", "Node", "GatewayClass"}


def test_only_security_policies_are_strict() -> None:
    assert {kind.name for kind in KINDS if kind.strict} == {"AuthorizationPolicy"}
    assert {"", "discovery.k8s.io", GATEWAY, "security.istio.io"} == GROUPS
