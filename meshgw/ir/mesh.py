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
    """All policies of one service behind one waypoint, gateway-wide ones included, sorted by namespace and name."""

    policies: tuple[AuthorizationPolicy, ...] = ()
