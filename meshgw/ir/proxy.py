"""How the proxies of a Gateway are deployed in a cluster."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from meshgw.api.meta import Key
from meshgw.ir.finding import Finding


class Deploying(StrEnum):
    """What is done with the objects of a Gateway.

    MANAGED: those of PROXY_OBJECTS are made and kept as they are there, others of the Gateway are removed.
    HELD: whatever exists stays as it is: nothing is made, changed or removed.
    SELF_MANAGED: the user runs the proxies; objects that were made for the Gateway are removed.
    """

    MANAGED = "managed"
    HELD = "held"
    SELF_MANAGED = "selfManaged"


class ProxyPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The decision for one Gateway of ours; `name` is that of all its objects, `held_by` says why they are HELD."""

    gateway: Key
    name: str
    deploying: Deploying = Deploying.MANAGED
    held_by: str = ""
    findings: tuple[Finding, ...] = ()
