from __future__ import annotations

import pytest

from meshgw.api.meta import Key
from meshgw.api.registry import KINDS, REGISTRY, Kind
from meshgw.kube.paths import crd_name, path_of, resource_path


def _kind(name: str) -> Kind:
    kind = REGISTRY.by_name(name)
    assert kind is not None
    return kind


def test_paths_of_objects_and_collections() -> None:
    assert path_of(_kind("Service")) == "/api/v1/services"
    assert path_of(_kind("Service"), namespace="a") == "/api/v1/namespaces/a/services"
    assert path_of(_kind("Service"), Key("a", "b")) == "/api/v1/namespaces/a/services/b"
    routes = "/apis/gateway.networking.k8s.io"
    assert path_of(_kind("HTTPRoute"), Key("a", "b"), subresource="status").endswith("/a/httproutes/b/status")
    assert path_of(_kind("HTTPRoute"), version="v1beta1") == f"{routes}/v1beta1/httproutes"
    assert path_of(_kind("GatewayClass"), Key("", "c")) == f"{routes}/v1/gatewayclasses/c"
    assert path_of(_kind("ServiceAccount"), Key("a", "b"), subresource="token").endswith("/serviceaccounts/b/token")
    assert path_of(_kind("Node"), namespace="a") == "/api/v1/nodes"


def test_names_cannot_leave_their_place() -> None:
    assert resource_path("v1", "secrets", namespace="n", name="a/b?c") == "/api/v1/namespaces/n/secrets/a%2Fb%3Fc"
    assert path_of(_kind("Secret"), Key("a", "../b")).endswith("/secrets/..%2Fb")
    for key in (Key("..", "b"), Key("a", ".")):
        with pytest.raises(ValueError, match="nowhere"):
            path_of(_kind("Secret"), key)


def test_half_an_identity_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="has a namespace"):
        path_of(_kind("Service"), Key("", "b"))
    with pytest.raises(ValueError, match="one of an object"):
        path_of(_kind("Service"), subresource="status")


def test_definitions_are_named_by_plural_and_group() -> None:
    assert crd_name(_kind("HTTPRoute")) == "httproutes.gateway.networking.k8s.io"
    assert len({path_of(kind) for kind in KINDS}) == len(KINDS)
