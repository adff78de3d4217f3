"""Playbooks of the delta session: `>>` what happens, `<<` what the session does about it."""

import pytest

from meshgw.emit.resource import Resource
from meshgw.xds.cache import Cache
from meshgw.xds.events import Changed, Writable
from meshgw.xds.proxy import Peer
from meshgw.xds.session import DeltaSession
from meshgw.xds.subscription import ACK_PATIENCE, MAX_UNANSWERED, WINDOW
from tests.unit.xds.playbook import (
    CDS,
    EDS,
    GROUP,
    LDS,
    LISTENER,
    RDS,
    ROUTES,
    SDS,
    SITE,
    After,
    Play,
    ack,
    acked,
    authorize_all,
    cluster,
    edit,
    nack,
    nacked,
    plain,
    pushed,
    started,
    subscribe,
)

# Changes and their order


def test_a_change_sends_only_what_changed() -> None:
    play = Play(cluster("a"), cluster("b"))
    (
        play
        >> subscribe(CDS, node_id="n")
        << pushed(CDS, "a", "b")
        >> edit(cluster("b", version=2))
        << pushed(CDS, "b")
    ).end()


def test_an_equal_version_is_not_sent() -> None:
    (started(Play(*SITE)) >> edit(cluster("a"))).end()


def test_clusters_and_endpoints_go_before_listeners_and_routes_without_waiting() -> None:
    play = started(Play(*SITE))
    (
        play
        >> edit(plain(RDS, "r", version=2), plain(LDS, "l", version=2), plain(EDS, "b"), cluster("b"))
        << pushed(CDS, "b")
        << pushed(EDS, "b")
        << pushed(LDS, "l")
        << pushed(RDS, "r")
    ).end()


def test_a_changed_cluster_gets_its_endpoints_again() -> None:
    (started(Play(*SITE)) >> edit(cluster("a", version=2)) << pushed(CDS, "a") << pushed(EDS, "a")).end()


def test_a_cluster_may_name_its_endpoints_otherwise() -> None:
    play = started(Play(*SITE))
    (play >> edit(cluster("b", service="s"), plain(EDS, "s")) << pushed(CDS, "b") << pushed(EDS, "s")).end()


def test_clusters_without_endpoints_of_their_own_bring_none() -> None:
    play = started(Play(*SITE))
    (play >> edit(Resource.of(CDS, "static", b""), cluster("b")) << pushed(CDS, "b", "static")).end()


def test_on_a_cold_start_endpoints_wait_for_the_proxys_own_request() -> None:
    play = Play(*SITE)
    (play >> subscribe(CDS, node_id="n") << pushed(CDS, "a") >> subscribe(EDS, "a") << pushed(EDS, "a")).end()


def test_endpoints_go_along_as_soon_as_listeners_were_asked_for() -> None:
    play = Play(LISTENER)
    (
        play
        >> subscribe(CDS, node_id="n")
        << pushed(CDS)
        >> subscribe(LDS)
        << pushed(LDS, "l")
        >> edit(cluster("a"), plain(EDS, "a"))
        << pushed(CDS, "a")
        << pushed(EDS, "a")
    ).end()


def test_a_new_secret_goes_along_before_the_listener_that_needs_it() -> None:
    play = started(Play(*SITE))
    (
        play
        >> subscribe(SDS, "key")
        << pushed(SDS, "-key")
        >> edit(plain(SDS, "key"), plain(SDS, "new"), plain(LDS, "l", version=2))
        << pushed(SDS, "key", "new")
        << pushed(LDS, "l")
    ).end()


def test_a_listener_is_replaced_in_one_response() -> None:
    play = started(Play(*SITE))
    (play >> edit(plain(LDS, "m"), remove=[(LDS, "l")]) << pushed(LDS, "m", "-l")).end()


def test_clusters_are_never_held_up_by_their_acks() -> None:
    play = started(Play(*SITE))
    for number in range(5):
        (
            play
            >> edit(cluster(f"c{number}"), plain(EDS, f"c{number}"))
            << pushed(CDS, f"c{number}")
            << pushed(EDS, f"c{number}")
        ).end()


def test_changes_during_an_unanswered_route_push_merge_into_one() -> None:
    play = started(Play(*SITE))
    (play >> edit(plain(RDS, "r", version=2)) << pushed(RDS, "r")).end()
    for version in range(3, 9):
        play >>= edit(plain(RDS, "r", version=version))
    (play >> ack(RDS) << acked(RDS) << pushed(RDS, "r")).end()
    assert b"r 8" in play.sent[-1].body


def test_an_unanswered_push_holds_back_its_type_only_for_so_long() -> None:
    play = started(Play(*SITE))
    (
        play
        >> edit(plain(RDS, "r", version=2))
        << pushed(RDS, "r")
        >> edit(plain(RDS, "r", version=3))
        >> After(ACK_PATIENCE)
        << pushed(RDS, "r")
    ).end()


def test_routes_wait_for_clusters_that_cannot_be_sent_yet_but_endpoints_do_not() -> None:
    play = started(Play(*SITE))
    for number in range(WINDOW[CDS]):
        (play >> edit(Resource.of(CDS, "s", b"%d" % number)) << pushed(CDS, "s")).end()
    (
        play
        >> edit(cluster("b"), plain(RDS, "r", version=2), plain(EDS, "a", version=2))
        << pushed(EDS, "a")
        >> ack(CDS)
        << acked(CDS)
        << pushed(CDS, "b")
        << pushed(RDS, "r")
    ).end()


def test_a_proxy_that_never_answers_costs_bounded_memory() -> None:
    play = Play(ROUTES)
    (play >> subscribe(RDS, "r", node_id="n") << pushed(RDS, "r")).end()
    for version in range(2, 2 * MAX_UNANSWERED):
        (play >> After(ACK_PATIENCE) >> edit(plain(RDS, "r", version=version)) << pushed(RDS, "r")).end()
    assert play.session.state().types[RDS].unanswered == MAX_UNANSWERED


def test_nothing_is_sent_while_the_transport_is_full_and_then_only_the_newest() -> None:
    play = started(Play(*SITE))
    play.writable = False
    for version in range(2, 50):
        play >>= edit(plain(RDS, "r", version=version), cluster("a", version=version))
    play.writable = True
    (play >> After(0) << pushed(CDS, "a") << pushed(EDS, "a") << pushed(RDS, "r")).end()


def test_versions_and_bytes_are_the_same_for_every_proxy_but_for_the_nonce() -> None:
    cache = Cache()
    cache.apply(GROUP, edit(*(cluster(f"c{n}") for n in range(50))).changes, now=0, ready=True)
    first, second = Play(cache=cache), Play(cache=cache, proxy=2)
    expected = pushed(CDS, *sorted(f"c{n}" for n in range(50)))
    (first >> subscribe(RDS, "x", node_id="n") << pushed(RDS, "-x")).end()
    (first >> subscribe(CDS) << expected).end()
    (second >> subscribe(CDS, node_id="m") << expected).end()
    one, other = first.sent[-1], second.sent[-1]
    assert (one.nonce, other.nonce) == ("2", "1")
    assert one.body.removesuffix(b"\x2a\x01" + b"2") == other.body.removesuffix(b"\x2a\x01" + b"1")


# Removal


def test_a_cluster_leaves_only_after_the_routes_that_no_longer_name_it_are_acknowledged() -> None:
    play = started(Play(*SITE))
    (
        play
        >> edit(cluster("b"), plain(EDS, "b"), plain(RDS, "r", version=2), remove=[(CDS, "a"), (EDS, "a")])
        << pushed(CDS, "b")
        << pushed(EDS, "b")
        << pushed(RDS, "r")
        >> ack(CDS)
        << acked(CDS)
        >> ack(RDS)
        << acked(RDS)
        << pushed(CDS, "-a")
        << pushed(EDS, "-a")
    ).end()


def test_a_cluster_whose_routes_are_refused_leaves_after_the_bound() -> None:
    play = started(Play(*SITE))
    (
        play
        >> edit(plain(RDS, "r", version=2), remove=[(CDS, "a")])
        << pushed(RDS, "r")
        >> nack(RDS)
        << nacked(RDS, "bad", "r")
        >> After(29)
        >> After(1)
        << pushed(CDS, "-a")
    ).end()


def test_a_cluster_that_comes_back_before_it_left_is_not_sent_at_all() -> None:
    play = started(Play(*SITE))
    (
        play
        >> edit(plain(RDS, "r", version=2), remove=[(CDS, "a")])
        << pushed(RDS, "r")
        >> edit(cluster("a"))
        >> ack(RDS)
        << acked(RDS)
    ).end()


def test_a_cluster_that_comes_back_changed_before_its_removal_was_sent_is_an_update() -> None:
    play = started(Play(*SITE))
    play.writable = False
    play >>= edit(remove=[(CDS, "a")])
    play.writable = True
    (play >> edit(cluster("a", version=2)) << pushed(CDS, "a") << pushed(EDS, "a")).end()


def test_the_endpoints_of_a_leaving_cluster_are_still_answered() -> None:
    play = started(Play(*SITE))
    (
        play
        >> edit(plain(RDS, "r", version=2), remove=[(CDS, "a"), (EDS, "a")])
        << pushed(RDS, "r")
        >> subscribe(EDS, "a")
        << pushed(EDS, "a")
    ).end()


def test_asking_again_for_what_has_just_left_is_answered_by_its_removal() -> None:
    play = started(Play(*SITE))
    play.writable = False
    play >>= edit(remove=[(EDS, "a")])
    play.writable = True
    (play >> subscribe(EDS, "a") << pushed(EDS, "-a")).end()


def test_removed_routes_are_removed_at_once() -> None:
    (started(Play(*SITE)) >> edit(remove=[(RDS, "r")]) << pushed(RDS, "-r")).end()


# ACK and NACK


def test_an_ack_is_recorded_with_its_time() -> None:
    play = Play(ROUTES)
    (play >> subscribe(RDS, "r", node_id="n") << pushed(RDS, "r")).end()
    play.now += 0.25
    (play >> ack(RDS) << acked(RDS)).end()
    state = play.session.state().types[RDS]
    assert state.ack_seconds == pytest.approx(0.25)
    assert state.version_acked == state.version_sent != ""
    assert (state.names, state.resources, state.unanswered, state.wildcard) == (1, 1, 0, False)


def test_stale_and_unknown_nonces_are_ignored() -> None:
    play = Play(ROUTES)
    (
        play
        >> subscribe(RDS, "r", node_id="n")
        << pushed(RDS, "r")
        >> ack(RDS, nonce="77")
        >> nack(RDS, nonce="")
        >> ack(RDS)
        << acked(RDS)
        >> ack(RDS)
    ).end()


def test_answering_a_response_answers_the_ones_before_it() -> None:
    play = started(Play(*SITE))
    (
        play
        >> edit(cluster("b"))
        << pushed(CDS, "b")
        >> edit(cluster("c"))
        << pushed(CDS, "c")
        >> ack(CDS)
        << acked(CDS)
    ).end()
    assert play.session.state().types[CDS].unanswered == 0


def test_a_request_may_answer_and_subscribe_at_once() -> None:
    play = Play(plain(EDS, "a"), plain(EDS, "b"))
    request = subscribe(EDS, "b")
    request.response_nonce = "1"
    (play >> subscribe(EDS, "a", node_id="n") << pushed(EDS, "a") >> request << acked(EDS) << pushed(EDS, "b")).end()


def test_a_refused_resource_keeps_its_text_and_is_not_sent_again_until_it_changes() -> None:
    play = started(Play(*SITE))
    (
        play
        >> edit(plain(RDS, "r", version=2))
        << pushed(RDS, "r")
        >> nack(RDS, "missing ]")
        << nacked(RDS, "missing ]", "r")
        >> edit(plain(RDS, "r", version=2), plain(LDS, "l", version=2))
        << pushed(LDS, "l")
    ).end()
    assert play.session.state().types[RDS].nack == "missing ]"
    assert play.session.state().types[RDS].refused == ("r",)
    (play >> edit(plain(RDS, "r", version=3)) << pushed(RDS, "r")).end()
    assert play.session.state().types[RDS].nack == "missing ]"
    (play >> ack(RDS) << acked(RDS)).end()
    assert play.session.state().types[RDS].nack == ""
    assert play.session.state().types[RDS].refused == ()


def test_a_refused_response_is_halved_until_only_the_bad_resource_is_left_out() -> None:
    play = Play(*(plain(SDS, name) for name in "abcd"))
    (
        play
        >> subscribe(SDS, *"abcd", node_id="n")
        << pushed(SDS, *"abcd")
        >> nack(SDS)
        << nacked(SDS, "bad", *"abcd")
        << pushed(SDS, *"ab")
        << pushed(SDS, *"cd")
        >> nack(SDS, "d is bad")
        << nacked(SDS, "d is bad", *"cd")
        << pushed(SDS, "c")
        << pushed(SDS, "d")
        >> ack(SDS, nonce="4")
        << acked(SDS)
        >> nack(SDS, "d is bad")
        << nacked(SDS, "d is bad", "d")
    ).end()
    assert "d" in play.session.state().types[SDS].refused


def test_a_part_to_try_apart_leaves_out_what_changed_went_or_is_not_wanted_any_more() -> None:
    play = Play(*(plain(RDS, name) for name in "abcd"))
    (play >> subscribe(RDS, *"abcd", node_id="n") << pushed(RDS, *"abcd")).end()
    play.writable = False
    (play >> nack(RDS) << nacked(RDS, "bad", *"abcd") >> subscribe(RDS, drop=["a"])).end()
    play >>= edit(plain(RDS, "c", version=2), remove=[(RDS, "b"), (RDS, "d")])
    play.writable = True
    (play >> After(0) << pushed(RDS, "c", "-b", "-d") >> ack(RDS) << acked(RDS)).end()
    assert play.session.state().types[RDS].nack == ""


def test_a_refused_cluster_tried_apart_brings_its_endpoints_again() -> None:
    play = started(Play(*SITE))
    (
        play
        >> edit(cluster("b"), cluster("c"), plain(EDS, "b"), plain(EDS, "c"))
        << pushed(CDS, "b", "c")
        << pushed(EDS, "b", "c")
        >> nack(CDS)
        << nacked(CDS, "bad", "b", "c")
        << pushed(CDS, "b")
        << pushed(CDS, "c")
        << pushed(EDS, "b", "c")
    ).end()


def test_a_refused_removal_is_forgotten_with_the_next_ack() -> None:
    play = started(Play(*SITE))
    (play >> edit(remove=[(LDS, "l")]) << pushed(LDS, "-l") >> nack(LDS) << nacked(LDS, "bad", "l")).end()
    assert play.session.state().types[LDS].refused == ("l",)
    (play >> edit(plain(LDS, "m")) << pushed(LDS, "m") >> ack(LDS) << acked(LDS)).end()
    assert play.session.state().types[LDS].refused == ()


def test_a_long_nack_text_is_cut() -> None:
    play = Play(ROUTES)
    text = "x" * 100_000
    (play >> subscribe(RDS, "r", node_id="n") << pushed(RDS, "r") >> nack(RDS, text) << nacked(RDS, text, "r")).end()
    assert len(play.session.state().types[RDS].nack) < 10_000


# Settling


def test_a_fresh_proxy_without_listeners_holds_nothing_up() -> None:
    play = Play(cluster("a"))
    (play >> subscribe(CDS, node_id="n") << pushed(CDS, "a") >> edit(remove=[(CDS, "a")]) << pushed(CDS, "-a")).end()


def test_a_proxy_is_settled_when_listeners_and_routes_are_acknowledged() -> None:
    play = started(Play(*SITE))
    assert play.settled == 1
    (play >> edit(plain(RDS, "r", version=2)) << pushed(RDS, "r") >> edit(plain(RDS, "r", version=3))).end()
    assert play.settled == 1
    (play >> ack(RDS) << acked(RDS) << pushed(RDS, "r")).end()
    assert play.settled == 2
    (play >> ack(RDS) << acked(RDS)).end()
    assert play.settled == 3


def test_a_session_knows_whether_everything_is_answered() -> None:
    play = Play(*SITE)
    assert play.session.is_answered()
    play >> subscribe(CDS, node_id="n")
    play.output.clear()
    assert not play.session.is_answered()
    play >> ack(CDS)
    assert play.session.is_answered()


def test_a_session_that_was_never_admitted_has_nothing_to_write_and_ignores_changes() -> None:
    cache = Cache()
    session = DeltaSession(cache, proxy=1, peer=Peer(address="unix:"), authorize=authorize_all, now=0)
    changes = cache.apply(GROUP, edit(*SITE).changes, now=0, ready=True)
    assert session.handle(Changed(changes, 0)) == session.handle(Writable(0)) == []


def test_bodies_never_show() -> None:
    play = Play(Resource.of(SDS, "key", b"-----BEGIN PRIVATE KEY-----"))
    (play >> subscribe(SDS, "key", node_id="n") << pushed(SDS, "key")).end()
    assert "PRIVATE" in str(play.sent[-1].body)
    assert "PRIVATE" not in repr(play.sent)
