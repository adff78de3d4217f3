"""The pipeline and the addresses and resources that follow from it."""

from __future__ import annotations

from collections.abc import Mapping

from meshgw.api.meta import Key
from meshgw.control import Control
from meshgw.emit.resource import LISTENER, Resource
from meshgw.ir.gateway import Settings
from meshgw.observe.metrics import Metrics
from meshgw.standalone.addresses import LoopbackPlacing
from meshgw.standalone.facts import read_text

GATEWAY = Key("default", "gw")


def gateway(address: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: default}}
spec:
  gatewayClassName: meshgw
  addresses: [{{type: IPAddress, value: {address}}}]
  listeners: [{{name: http, port: 80, protocol: HTTP}}]
"""


def test_a_gateway_that_asks_for_another_address_moves_there() -> None:
    published: list[tuple[Key, Mapping[tuple[str, str], Resource | None]]] = []
    control = Control(
        settings=Settings(),
        publish=lambda key, changes: published.append((key, changes)),
        metrics=Metrics(),
        placing=LoopbackPlacing(10_000),
    )
    control.commit(read_text(gateway("127.0.0.8"))[0])
    published.clear()
    outcome = control.commit(read_text(gateway("127.0.0.9"))[0])
    assert outcome.gateways
    assert control.binding(GATEWAY).bind == "127.0.0.9"
    ((key, changes),) = published
    assert key == GATEWAY
    moved = changes[LISTENER, "tcp/80"]
    assert moved is not None
    assert b"127.0.0.9" in moved.body
