"""What the API server adds to an object when it is stored.

Defaults of single fields are the defaults of the structs; here are those that depend on other fields.
Applying them twice changes nothing, so objects from a cluster may pass through too.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec.structs import replace

from meshgw.api.core import Namespace, Pod, Secret, Service, ServicePort
from meshgw.api.http import HTTPRoute, HTTPRouteRule
from meshgw.api.meta import Resource
from meshgw.api.registry import Kind

DEFAULT_NAMESPACE: Final = "default"
NAMESPACE_NAME_LABEL: Final = "kubernetes.io/metadata.name"


def apply_defaults(kind: Kind, resource: Resource) -> Resource:
    """The object as the API server would store it."""
    namespace = (resource.metadata.namespace or DEFAULT_NAMESPACE) if kind.namespaced else ""
    if namespace != resource.metadata.namespace:
        resource = replace(resource, metadata=replace(resource.metadata, namespace=namespace))
    complete = _BY_STRUCT.get(kind.struct)
    return complete(resource) if complete else resource


def _namespace(namespace: Namespace) -> Namespace:
    name, labels = namespace.metadata.name, namespace.metadata.labels
    if labels.get(NAMESPACE_NAME_LABEL) == name:
        return namespace
    metadata = replace(namespace.metadata, labels={**labels, NAMESPACE_NAME_LABEL: name})
    return replace(namespace, metadata=metadata)


def _service(service: Service) -> Service:
    if all(port.target_port for port in service.spec.ports):
        return service
    ports = tuple(_service_port(port) for port in service.spec.ports)
    return replace(service, spec=replace(service.spec, ports=ports))


def _service_port(port: ServicePort) -> ServicePort:
    return port if port.target_port else replace(port, target_port=port.port)


def _pod(pod: Pod) -> Pod:
    if pod.spec.service_account_name:
        return pod
    return replace(pod, spec=replace(pod.spec, service_account_name="default"))


def _secret(secret: Secret) -> Secret:
    if not secret.string_data:
        return secret
    text = {name: value.encode() for name, value in secret.string_data.items()}
    return replace(secret, data={**secret.data, **text}, string_data={})


def _http_route(route: HTTPRoute) -> HTTPRoute:
    if all(rule.matches for rule in route.spec.rules):
        return route
    # An empty list is stored as it is, and means the same as an absent one.
    rules = tuple(rule if rule.matches else replace(rule, matches=HTTPRouteRule().matches) for rule in route.spec.rules)
    return replace(route, spec=replace(route.spec, rules=rules))


_BY_STRUCT: Final[Mapping[type[Resource], Callable[[Any], Resource]]] = {
    HTTPRoute: _http_route,
    Namespace: _namespace,
    Pod: _pod,
    Secret: _secret,
    Service: _service,
}
