"""The rules of the API server that involve several fields: what its schemas' CEL expressions refuse.

Single fields are checked while decoding, by the types of the structs.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from meshgw.api import check_core, check_gateway, check_meshgw, check_route
from meshgw.api.core import EndpointSlice, Service
from meshgw.api.gateway import Gateway, ListenerSet
from meshgw.api.grpc import GRPCRoute
from meshgw.api.http import HTTPRoute
from meshgw.api.istio import AuthorizationPolicy
from meshgw.api.l4 import TCPRoute, TLSRoute, UDPRoute
from meshgw.api.meshgw import GatewayParameters
from meshgw.api.meta import ObjectRef, Resource
from meshgw.api.policy import BackendTLSPolicy

Violation = tuple[str, str]
"""A field path such as ``spec.rules[0].matches`` and what is wrong there."""


class Problem(Struct, frozen=True, kw_only=True):
    """Why an object has the wrong shape: the object, a field path such as ``spec.rules[0].matches``, and a message."""

    object: ObjectRef
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.object}: {self.field}: {self.message}" if self.field else f"{self.object}: {self.message}"


_CHECKS: Final[Mapping[type[Resource], Callable[[Any], Iterator[Violation]]]] = {
    AuthorizationPolicy: check_core.authorization_policy,
    BackendTLSPolicy: check_gateway.backend_tls_policy,
    EndpointSlice: check_core.endpoint_slice,
    Gateway: check_gateway.gateway,
    GatewayParameters: check_meshgw.gateway_parameters,
    GRPCRoute: check_route.grpc_route,
    HTTPRoute: check_route.http_route,
    ListenerSet: check_gateway.listener_set,
    Service: check_core.service,
    TCPRoute: check_route.l4_route,
    TLSRoute: check_route.tls_route,
    UDPRoute: check_route.l4_route,
}


def check(resource: Resource) -> tuple[Problem, ...]:
    """Everything the API server would refuse in a decoded object; empty when it is well formed."""
    rules = _CHECKS.get(type(resource))
    if rules is None:
        return ()
    violations = tuple(rules(resource))
    if not violations:
        return ()
    ref = ObjectRef(type(resource).__name__, *resource.key)
    return tuple(Problem(object=ref, field=field, message=message) for field, message in violations)
