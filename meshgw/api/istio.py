"""Istio security objects (``security.istio.io/v1``)."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from meshgw.api.meta import ApiStruct, StrictResource
from meshgw.api.scalars import Group, KindName, ObjectName


class WorkloadSelector(ApiStruct, frozen=True, kw_only=True):
    """Workloads whose labels include all of ``match_labels``."""

    match_labels: Mapping[str, Annotated[str, Meta(max_length=63)]] = {}


class PolicyTargetReference(ApiStruct, frozen=True, kw_only=True):
    """The target of a policy, in its namespace (in the root namespace for a GatewayClass)."""

    group: Group = ""
    kind: KindName
    name: ObjectName
    namespace: Annotated[str, Meta(max_length=0)] = ""


class ExtensionProvider(ApiStruct, frozen=True, kw_only=True):
    """The extension that decides for action CUSTOM."""

    name: str = ""


class Source(ApiStruct, frozen=True, kw_only=True):
    """Conditions on the peer: all fields that are set must hold; a list holds when one of its values does."""

    principals: tuple[str, ...] = ()
    not_principals: tuple[str, ...] = ()
    request_principals: tuple[str, ...] = ()
    not_request_principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    not_service_accounts: tuple[str, ...] = ()
    ip_blocks: tuple[str, ...] = ()
    not_ip_blocks: tuple[str, ...] = ()
    remote_ip_blocks: tuple[str, ...] = ()
    not_remote_ip_blocks: tuple[str, ...] = ()


class RuleFrom(ApiStruct, frozen=True, kw_only=True):
    """One alternative of a rule's sources."""

    source: Source = Source()


class Operation(ApiStruct, frozen=True, kw_only=True):
    """Conditions on the request: all fields that are set must hold; a list holds when one of its values does."""

    hosts: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    not_ports: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()


class RuleTo(ApiStruct, frozen=True, kw_only=True):
    """One alternative of a rule's operations."""

    operation: Operation = Operation()


class Condition(ApiStruct, frozen=True, kw_only=True):
    """A condition on an attribute such as ``request.headers[x-user]``."""

    key: Annotated[str, Meta(min_length=1)]
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()


class Rule(ApiStruct, frozen=True, kw_only=True):
    """Holds when one source, one operation and all conditions do; an empty part always holds."""

    from_: tuple[RuleFrom, ...] = ()
    to: tuple[RuleTo, ...] = ()
    when: tuple[Condition, ...] = ()


class AuthorizationPolicySpec(ApiStruct, frozen=True, kw_only=True):
    """Who may do what; without selector and targets it covers its namespace, without rules it matches nothing."""

    selector: WorkloadSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: tuple[PolicyTargetReference, ...] = ()
    rules: tuple[Rule, ...] = ()
    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] = "ALLOW"
    provider: ExtensionProvider | None = None


class AuthorizationPolicy(StrictResource, frozen=True, kw_only=True):
    """An AuthorizationPolicy; one with fields that were not understood must deny."""

    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()
