"""Playbooks of who may have what, and how much: admission, limits, and what is known of a proxy."""

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from meshgw.xds.events import Close, Received
from meshgw.xds.proxy import Limits, Peer, Refused
from tests.unit.xds.playbook import (
    CDS,
    EDS,
    GROUP,
    LDS,
    RDS,
    SDS,
    SITE,
    Closed,
    Play,
    ack,
    acked,
    cluster,
    node,
    pushed,
    started,
    subscribe,
)


def test_the_first_request_must_name_a_node() -> None:
    (Play() >> subscribe(CDS) << Closed("INVALID_ARGUMENT")).end()


def test_a_request_without_a_type_is_refused() -> None:
    (Play() >> subscribe("", node_id="n") << Closed("INVALID_ARGUMENT")).end()


def test_a_refused_node_is_told_why_and_gets_nothing() -> None:
    play = Play(cluster("a"), authorize=lambda peer, node_id, metadata: Refused("not yours"))
    request = Received(subscribe(CDS, node_id="n"), play.now)
    assert play.session.handle(request) == [Close("PERMISSION_DENIED", "not yours")]
    assert play.session.handle(request) == []
    assert play.session.group is None
    assert not play.session.state().connected


def test_the_policy_sees_peer_node_and_metadata() -> None:
    seen: list[object] = []

    def authorize(peer: Peer, node_id: str, metadata: object) -> str:
        seen.append((peer.address, node_id, metadata))
        return GROUP

    request = subscribe(CDS)
    request.node.CopyFrom(node("n", role="waypoint"))
    (Play(authorize=authorize) >> request << pushed(CDS)).end()
    assert seen == [("unix:", "n", {"role": "waypoint"})]


def test_the_policy_is_asked_again_with_every_request() -> None:
    verdicts: list[str | Refused] = [GROUP, GROUP, Refused("revoked")]
    play = Play(authorize=lambda peer, node_id, metadata: verdicts.pop(0))
    (
        play
        >> subscribe(CDS, node_id="n")
        << pushed(CDS)
        >> ack(CDS)
        << acked(CDS)
        >> subscribe(LDS)
        << Closed("PERMISSION_DENIED")
    ).end()


def test_a_proxy_cannot_move_to_another_group_on_one_stream() -> None:
    verdicts = [GROUP, "other"]
    play = Play(authorize=lambda peer, node_id, metadata: verdicts.pop(0))
    (
        play >> subscribe(CDS, node_id="n") << pushed(CDS) >> subscribe(LDS, node_id="n") << Closed("PERMISSION_DENIED")
    ).end()


def test_a_changed_node_id_ends_the_stream() -> None:
    play = Play()
    (
        play >> subscribe(CDS, node_id="n") << pushed(CDS) >> subscribe(LDS, node_id="m") << Closed("PERMISSION_DENIED")
    ).end()


def test_names_in_one_request_are_limited() -> None:
    play = Play(limits=Limits(names=2))
    (play >> subscribe(EDS, "a", "b", drop=["c"], node_id="n") << Closed("RESOURCE_EXHAUSTED")).end()


def test_names_subscribed_over_time_are_limited() -> None:
    play = Play(limits=Limits(names=2))
    (
        play
        >> subscribe(EDS, "a", "b", node_id="n")
        << pushed(EDS, "-a", "-b")
        >> subscribe(EDS, "c")
        << Closed("RESOURCE_EXHAUSTED")
    ).end()


def test_names_subscribed_of_all_types_are_limited_together() -> None:
    play = Play(limits=Limits(names=2))
    (
        play
        >> subscribe(EDS, "a", "b", node_id="n")
        << pushed(EDS, "-a", "-b")
        >> subscribe(SDS, "c")
        << Closed("RESOURCE_EXHAUSTED")
    ).end()


def test_what_a_stream_makes_the_session_hold_is_limited() -> None:
    play = Play(limits=Limits(held_bytes=10_000))
    play >> subscribe(EDS, node_id="n")
    for number in range(50):  # much in all, but little at a time
        name = f"{number}-" + "x" * 1_000
        play >> subscribe(EDS, name) << pushed(EDS, f"-{name}") >> ack(EDS) << acked(EDS) >> subscribe(EDS, drop=[name])
    taken = 0
    while play.output != [Closed("RESOURCE_EXHAUSTED")] and taken < 20:
        play.output.clear()
        play >> subscribe(EDS, f"{taken}-" + "x" * 1_000)
        taken += 1
    assert 4 < taken < 10


def test_what_a_stream_says_it_holds_counts() -> None:
    versions = {str(number): "v" * 1_000 for number in range(6)}
    play = Play(limits=Limits(held_bytes=10_000))
    play >> subscribe(CDS, versions=versions, node_id="n")
    (play >> subscribe(LDS, versions=versions) << Closed("RESOURCE_EXHAUSTED")).end()


def node_with(metadata: dict[str, float | str], node_id: str = "n") -> discovery_pb2.DeltaDiscoveryRequest:
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=CDS)
    request.node.id = node_id
    request.node.metadata.update(metadata)
    return request


@pytest.mark.parametrize(
    "request_",
    [
        node_with({"a": "x" * 70_000}),
        node_with({"a": float("inf")}),
        node_with({}, "n" * 2_000),
        subscribe("t" * 2_000, node_id="n"),
    ],
)
def test_nodes_and_types_are_of_this_world(request_: discovery_pb2.DeltaDiscoveryRequest) -> None:
    (Play() >> request_ << Closed("INVALID_ARGUMENT")).end()


def test_a_refusal_has_the_code_it_was_given() -> None:
    play = Play(authorize=lambda *_: Refused("later", "UNAVAILABLE"))
    (play >> subscribe(CDS, node_id="n") << Closed("UNAVAILABLE")).end()


def test_types_on_one_stream_are_limited() -> None:
    play = Play(limits=Limits(types=1))
    (play >> subscribe(CDS, node_id="n") << pushed(CDS) >> subscribe(LDS) << Closed("INVALID_ARGUMENT")).end()


def test_the_state_names_the_proxy() -> None:
    state = started(Play(*SITE)).session.state()
    assert (state.proxy, state.node_id, state.group, state.address) == (1, "n", GROUP, "unix:")
    assert (state.protocol, state.connected_at, state.connected) == ("delta", 100.0, True)
    assert state.types[CDS].wildcard
    assert set(state.types) == {CDS, EDS, LDS, RDS}
