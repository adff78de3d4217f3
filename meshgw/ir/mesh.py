"""Waypoints: the services and workloads behind them, and who may call them."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from meshgw.api.meta import Key
from meshgw.ir.finding import Finding


class AppProtocol(StrEnum):
    """What a service port speaks, as the waypoint treats it."""

    HTTP = "http"
    TCP = "tcp"


class WaypointPort(msgspec.Struct, frozen=True, kw_only=True):
    """One service port behind a waypoint."""

    port: int
    protocol: AppProtocol = AppProtocol.HTTP


class WaypointService(msgspec.Struct, frozen=True, kw_only=True):
    """A Service whose traffic a waypoint takes: `addresses` are its VIPs, matched against the CONNECT authority."""

    gateway: Key
    service: Key
    hostname: str
    addresses: tuple[str, ...] = ()
    ports: tuple[WaypointPort, ...] = ()


class WaypointWorkload(msgspec.Struct, frozen=True, kw_only=True):
    """A Pod whose own addresses a waypoint takes (`istio.io/waypoint-for: workload` or `all`)."""

    gateway: Key
    pod: Key
    addresses: tuple[str, ...] = ()
    identity: str = ""
    """SPIFFE id the destination must prove."""
    hbone: bool = False


class Enrolment(msgspec.Struct, frozen=True, kw_only=True):
    """What `istio.io/use-waypoint` of a Service or Pod (or its Namespace) comes to.

    `waypoint` is None when the label cannot be followed: the findings say why.
    """

    kind: str
    key: Key
    waypoint: Key | None
    findings: tuple[Finding, ...] = ()


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What the mesh knows of an address: whether it speaks HBONE, and as whom."""

    pod: Key
    addresses: tuple[str, ...] = ()
    identity: str = ""
    hbone: bool = False


class StringKind(StrEnum):
    """Value forms of Istio's policies."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    PRESENT = "present"


class StringMatch(msgspec.Struct, frozen=True):
    """`x`, `x*`, `*x` or `*`."""

    kind: StringKind
    value: str = ""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One `from` entry: every non-empty list must have a match, no `not_` list may."""

    principals: tuple[StringMatch, ...] = ()
    not_principals: tuple[StringMatch, ...] = ()
    namespaces: tuple[StringMatch, ...] = ()
    not_namespaces: tuple[StringMatch, ...] = ()


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One `to` entry."""

    hosts: tuple[StringMatch, ...] = ()
    not_hosts: tuple[StringMatch, ...] = ()
    ports: tuple[int, ...] = ()
    not_ports: tuple[int, ...] = ()
    methods: tuple[StringMatch, ...] = ()
    not_methods: tuple[StringMatch, ...] = ()
    paths: tuple[StringMatch, ...] = ()
    not_paths: tuple[StringMatch, ...] = ()

    @property
    def needs_http(self) -> bool:
        """Whether it asks for what connections do not have."""
        return any((self.hosts, self.not_hosts, self.methods, self.not_methods, self.paths, self.not_paths))

    def covers(self, port: int) -> bool:
        """Whether it is about a port."""
        return (not self.ports or port in self.ports) and port not in self.not_ports


class AuthorizationRule(msgspec.Struct, frozen=True, kw_only=True):
    """Some source and some operation; an empty tuple means any."""

    sources: tuple[Source, ...] = ()
    operations: tuple[Operation, ...] = ()


class Action(StrEnum):
    """What a matching rule does."""

    ALLOW = "ALLOW"
    DENY = "DENY"


class AuthorizationPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy as it is enforced.

    One that could not be read in full has become `DENY` with the rule `{}` (fail closed).
    """

    key: Key
    action: Action
    targets: tuple[tuple[str, Key], ...]
    """(Gateway, GatewayClass or Service, key). ("Namespace", key) stands for all of a namespace."""
    rules: tuple[AuthorizationRule, ...] = ()
    findings: tuple[Finding, ...] = ()


class Authorization(msgspec.Struct, frozen=True, kw_only=True):
    """All policies in force at one place, gateway-wide ones included, sorted by namespace and name.

    The place is a Service behind a waypoint, traffic to workloads behind one, or a Gateway of another role.
    """

    policies: tuple[AuthorizationPolicy, ...] = ()

    def admits_strangers(self, port: int) -> bool:
        """Whether connections to a port are let in of which nothing but the port is known.

        What asks for more is read in the direction of refusal: an ALLOW rule does not match, a DENY rule does.
        """
        denies = [policy for policy in self.policies if policy.action is Action.DENY]
        if any(_any_covers(rule, port) for policy in denies for rule in policy.rules):
            return False
        allows = [policy for policy in self.policies if policy.action is Action.ALLOW]
        return not allows or any(
            _any_covers(rule, port) and not rule.sources and not any(item.needs_http for item in rule.operations)
            for policy in allows
            for rule in policy.rules
        )


def _any_covers(rule: AuthorizationRule, port: int) -> bool:
    return not rule.operations or any(operation.covers(port) for operation in rule.operations)
