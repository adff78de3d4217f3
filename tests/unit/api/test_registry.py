from __future__ import annotations

import pytest

from meshgw.api.http import HTTPRoute, HTTPRouteSpec
from meshgw.api.meta import ObjectMeta, Resource
from meshgw.api.registry import KINDS, REGISTRY, Kind, Registry

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
        ("meshgw.dev/v1alpha1", "GatewayParameters"),
    ],
)
def test_served_versions_are_found(api_version: str, name: str) -> None:
    kind = REGISTRY.lookup(api_version, name)
    assert kind is not None
    assert str(kind) == name
    assert kind.struct.__name__ == name


@pytest.mark.parametrize(
    ("api_version", "name"),
    [(f"{GATEWAY}/v1beta1", "GRPCRoute"), ("v1", "Gateway"), ("networking.istio.io/v1", "Gateway")],
)
def test_other_versions_are_not(api_version: str, name: str) -> None:
    assert REGISTRY.lookup(api_version, name) is None


def test_names_and_plurals_are_unique() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert len({(kind.group, kind.plural) for kind in KINDS}) == len(KINDS)


def test_api_versions_name_the_preferred_version() -> None:
    assert {kind.api_version for kind in KINDS if not kind.group} == {"v1"}
    assert REGISTRY.by_name("TLSRoute") is not None
    assert REGISTRY.by_name("TLSRoute").api_version == f"{GATEWAY}/v1"  # type: ignore[union-attr]  # asserted above


def test_the_kind_of_an_object_is_found_by_its_struct() -> None:
    route = HTTPRoute(metadata=ObjectMeta(name="a"), spec=HTTPRouteSpec())
    assert REGISTRY.kind_of(route).plural == "httproutes"


def test_cluster_scoped_kinds_are_marked() -> None:
    assert {kind.name for kind in KINDS if not kind.namespaced} == {"Namespace", "Node", "GatewayClass"}


def test_only_security_policies_are_strict() -> None:
    assert {kind.name for kind in KINDS if kind.strict} == {"AuthorizationPolicy", "BackendTLSPolicy"}
    assert {"", "discovery.k8s.io", GATEWAY, "meshgw.dev", "security.istio.io"} == REGISTRY.groups


def test_a_registry_can_be_extended_and_the_first_is_left_alone() -> None:
    class Fault(Resource, frozen=True, kw_only=True):
        reason: str = ""

    kind = Kind(name="Fault", group="example.dev", versions=("v1",), plural="faults", struct=Fault)
    extended = REGISTRY.with_kinds([kind])
    assert extended.lookup("example.dev/v1", "Fault") is kind
    assert extended.by_name("HTTPRoute") is REGISTRY.by_name("HTTPRoute")
    assert "example.dev" in extended.groups
    assert REGISTRY.lookup("example.dev/v1", "Fault") is None


def test_two_kinds_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        Registry((*KINDS, KINDS[0]))
