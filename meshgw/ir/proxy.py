"""How the proxies of a Gateway are deployed in a cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from meshgw.api.meshgw import GatewayParametersSpec, Overlays
from meshgw.api.meta import Key
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Role

_LABEL = 63
"""Longest name of a Service, and longest value of a label."""


class Deploying(StrEnum):
    """What is done with the objects of a Gateway.

    MANAGED: those of PROXY_OBJECTS are made and kept as they are there, others of the Gateway are removed.
    HELD: whatever exists stays as it is: nothing is made, changed or removed.
    SELF_MANAGED: the user runs the proxies; objects that were made for the Gateway are removed.
    RELEASED: the Gateway is another controller's; objects that were made for it are removed.
    """

    MANAGED = "managed"
    HELD = "held"
    SELF_MANAGED = "selfManaged"
    RELEASED = "released"


class ProxyPort(msgspec.Struct, frozen=True, order=True):
    """One port of a Gateway's Service; `transport` is TCP or UDP, `app_protocol` may be ""."""

    port: int
    transport: str
    app_protocol: str = ""


class ProxyPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The decision for one Gateway, and all that its objects depend on besides the settings.

    `name` is that of all its objects, `uid` that of the Gateway, `held_by` says why they are HELD. `labels` and
    `annotations` are what the infrastructure of the Gateway adds, `address` what its Service asks for ("" is any).
    `overlays` go over the objects in order.
    """

    gateway: Key
    name: str
    deploying: Deploying = Deploying.MANAGED
    held_by: str = ""
    uid: str = ""
    class_name: str = ""
    role: Role | None = None
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    ports: tuple[ProxyPort, ...] = ()
    address: str = ""
    parameters: GatewayParametersSpec = GatewayParametersSpec()
    overlays: tuple[Overlays, ...] = ()
    findings: tuple[Finding, ...] = ()


def proxy_name(gateway: str, class_name: str) -> str:
    """Return the name of the objects of a Gateway: `<gateway>-<class>` (GEP-1762), always good for a Service.

    One that is too long, has dots or begins with a digit is made to fit, with a hash, so that it stays unique.
    """
    wanted = f"{gateway}-{class_name}"
    tidy = wanted.replace(".", "-")
    if not tidy[0].isalpha():
        tidy = f"gw-{tidy}"
    return wanted if tidy == wanted and len(wanted) <= _LABEL else _cut(tidy, f"{gateway}/{class_name}")


def label_value(text: str) -> str:
    """Return a name as the value of a label: the name itself unless it is too long."""
    return text if len(text) <= _LABEL else _cut(text, text)


def _cut(text: str, whole: str) -> str:
    digest = hashlib.blake2b(whole.encode(), digest_size=4).hexdigest()
    return f"{text[: _LABEL - len(digest) - 1].rstrip('-._')}-{digest}"
