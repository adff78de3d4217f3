"""Rules for core objects and AuthorizationPolicy that involve several fields."""

from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from meshgw.api.core import EndpointSlice, Service
from meshgw.api.istio import AuthorizationPolicy, Source

Violation = tuple[str, str]


def service(service: Service) -> Iterator[Violation]:
    """Rules for a Service: port names and numbers tell its ports apart."""
    spec = service.spec
    if spec.type == "ExternalName" and not spec.external_name:
        yield "spec.externalName", "is required for type ExternalName"
    names: set[str] = set()
    numbers: set[tuple[str, int]] = set()
    for index, port in enumerate(spec.ports):
        where = f"spec.ports[{index}]"
        if not port.name and len(spec.ports) > 1:
            yield f"{where}.name", "is required when there are several ports"
        elif port.name in names:
            yield f"{where}.name", f"`{port.name}` is used twice"
        if (port.protocol, port.port) in numbers:
            yield f"{where}.port", f"{port.port}/{port.protocol} is used twice"
        if isinstance(port.target_port, int) and not 0 <= port.target_port <= 65535:
            yield f"{where}.targetPort", "must be a port number (1 to 65535) or a port name"
        names.add(port.name)
        numbers.add((port.protocol, port.port))


def endpoint_slice(endpoints: EndpointSlice) -> Iterator[Violation]:
    """Rules for an EndpointSlice: addresses are of its address type."""
    if endpoints.address_type == "FQDN":
        return
    parse = IPv4Address if endpoints.address_type == "IPv4" else IPv6Address
    for index, endpoint in enumerate(endpoints.endpoints):
        for position, address in enumerate(endpoint.addresses):
            try:
                parse(address)
            except AddressValueError:
                field = f"endpoints[{index}].addresses[{position}]"
                yield field, f"`{address}` is not an {endpoints.address_type} address"


def authorization_policy(policy: AuthorizationPolicy) -> Iterator[Violation]:
    """Rules for an AuthorizationPolicy: one way to select, and sources that do not contradict."""
    spec = policy.spec
    if (spec.selector is not None) + (spec.target_ref is not None) + bool(spec.target_refs) > 1:
        yield "spec", "only one of selector, targetRef and targetRefs may be set"
    if spec.selector is not None:
        for key, value in spec.selector.match_labels.items():
            if not key or "*" in key or "*" in value:
                yield "spec.selector.matchLabels", "must have keys, and no wildcards in keys or values"
    for index, rule in enumerate(spec.rules):
        for position, entry in enumerate(rule.from_):
            if _contradicts(entry.source):
                field = f"spec.rules[{index}].from[{position}].source"
                yield field, "serviceAccounts cannot be set together with principals or namespaces"


def _contradicts(source: Source) -> bool:
    by_account = source.service_accounts or source.not_service_accounts
    by_identity = source.principals or source.not_principals or source.namespaces or source.not_namespaces
    return bool(by_account and by_identity)
