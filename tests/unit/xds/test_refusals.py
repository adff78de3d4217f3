"""Refusals of proxies, as findings."""

from __future__ import annotations

from meshgw.api.meta import Key
from meshgw.emit.resource import CLUSTER
from meshgw.ir.keys import ResourceKey
from meshgw.xds.proxy import ProxyState, TypeState
from meshgw.xds.refusals import Refusals


def state(proxy: int, nack: str = "", *, connected: bool = True) -> ProxyState:
    types = {CLUSTER: TypeState(nack=nack, refused=("a", "b", "c", "d") if nack else ())}
    return ProxyState(
        proxy=proxy,
        node_id=f"shop/gw/{proxy}",
        group="shop/gw",
        address="",
        protocol="delta",
        connected_at=0.0,
        connected=connected,
        types=types,
    )


def test_a_refusal_is_a_finding_of_the_gateway_until_the_proxy_accepts() -> None:
    refusals = Refusals()
    ((new, resources),) = refusals.note(state(1, "bad timeout"))
    assert resources == tuple(ResourceKey(Key("shop", "gw"), CLUSTER, name) for name in "abcd")
    assert (new.code, str(new.object), new.message) == ("MG6001", "Gateway shop/gw", "CDS a, b, c: bad timeout")
    assert refusals.note(state(1, "bad timeout")) == ()
    assert refusals.findings() == [new]
    refusals.note(state(1))
    assert refusals.findings() == []


def test_one_of_two_alike_proxies_that_accepts_does_not_speak_for_the_other() -> None:
    refusals = Refusals()
    refusals.note(state(1, "bad timeout"))
    refusals.note(state(2, "bad timeout"))
    assert len(refusals.findings()) == 1
    refusals.note(state(2))
    assert len(refusals.findings()) == 1
    refusals.note(state(1, "bad timeout", connected=False))
    assert refusals.findings() == []
