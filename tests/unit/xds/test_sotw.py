"""Playbooks of the state-of-the-world session."""

from meshgw.xds.cache import Cache
from meshgw.xds.proxy import Limits
from tests.unit.xds.playbook import (
    CDS,
    EDS,
    GROUP,
    LDS,
    RDS,
    SITE,
    After,
    Closed,
    SotwPlay,
    ack,
    acked,
    cluster,
    edit,
    nack,
    nacked,
    plain,
    pushed,
    want,
)


def started(play: SotwPlay) -> SotwPlay:
    (
        play
        >> want(CDS, node_id="n")
        << pushed(CDS, "a")
        >> want(EDS, "a")
        << pushed(EDS, "a")
        >> ack(EDS)
        << acked(EDS)
        >> ack(CDS)
        << acked(CDS)
        >> want(LDS)
        << pushed(LDS, "l")
        >> ack(LDS)
        << acked(LDS)
        >> want(RDS, "r")
        << pushed(RDS, "r")
        >> ack(RDS)
        << acked(RDS)
    ).end()
    return play


def test_sets_of_clusters_and_listeners_are_sent_whole() -> None:
    play = SotwPlay(cluster("a"), cluster("b"))
    (play >> want(CDS, node_id="n") << pushed(CDS, "a", "b") >> edit(cluster("c")) << pushed(CDS, "a", "b", "c")).end()


def test_a_star_means_all_and_its_end_leaves_the_names() -> None:
    play = SotwPlay(cluster("a"), cluster("b"))
    (
        play
        >> want(CDS, "*", node_id="n")
        << pushed(CDS, "a", "b")
        >> want(CDS, "b", nonce="1")
        << acked(CDS)
        << pushed(CDS, "b")
        >> edit(cluster("a", version=2))
    ).end()


def test_names_no_longer_listed_are_followed_no_more() -> None:
    play = SotwPlay(plain(EDS, "a"), plain(EDS, "b"))
    (
        play
        >> want(EDS, "a", "b", node_id="n")
        << pushed(EDS, "a", "b")
        >> want(EDS, "b", nonce="1")
        << acked(EDS)
        >> edit(plain(EDS, "a", version=2))
    ).end()


def test_only_changed_endpoints_are_sent() -> None:
    play = SotwPlay(plain(EDS, "a"), plain(EDS, "b"))
    (
        play
        >> want(EDS, "a", "b", node_id="n")
        << pushed(EDS, "a", "b")
        >> edit(plain(EDS, "b", version=2))
        << pushed(EDS, "b")
    ).end()


def test_an_empty_set_and_a_missing_name_are_answered() -> None:
    (SotwPlay() >> want(CDS, node_id="n") << pushed(CDS) >> want(EDS, "x") << pushed(EDS)).end()


def test_a_newly_named_resource_is_sent_alone() -> None:
    play = SotwPlay(plain(EDS, "a"), plain(EDS, "b"))
    (
        play
        >> want(EDS, "a", node_id="n")
        << pushed(EDS, "a")
        >> want(EDS, "a", "b", nonce="1")
        << acked(EDS)
        << pushed(EDS, "b")
    ).end()


def test_a_request_that_answers_an_outdated_response_changes_nothing() -> None:
    play = SotwPlay(plain(EDS, "a"), plain(EDS, "b"))
    (
        play
        >> want(EDS, "a", node_id="n")
        << pushed(EDS, "a")
        >> edit(plain(EDS, "a", version=2))
        << pushed(EDS, "a")
        >> want(EDS, "a", "b", nonce="1")
        << acked(EDS)
        >> want(EDS, "a", "b", nonce="2")
        << acked(EDS)
        << pushed(EDS, "b")
    ).end()


def test_asking_without_answering_sends_all_of_it_again() -> None:
    play = SotwPlay(cluster("a"), plain(EDS, "a"))
    (
        play
        >> want(CDS, node_id="n")
        << pushed(CDS, "a")
        >> want(CDS)
        << pushed(CDS, "a")
        >> want(EDS, "a")
        << pushed(EDS, "a")
        >> want(EDS, "a")
        << pushed(EDS, "a")
    ).end()


def test_a_resumed_set_that_is_unchanged_is_not_sent_again() -> None:
    cache = Cache()
    cache.apply(GROUP, edit(*SITE).changes, now=0, ready=True)
    first = SotwPlay(cache=cache)
    (first >> want(CDS, node_id="n") << pushed(CDS, "a")).end()
    held = first.session.state().types[CDS].version_sent
    second = SotwPlay(cache=cache, proxy=2)
    (second >> want(CDS, version=held, node_id="n") >> edit(cluster("b")) << pushed(CDS, "a", "b")).end()


def test_a_resumed_set_that_differs_is_sent_with_its_endpoints() -> None:
    (SotwPlay(*SITE) >> want(CDS, version="old", node_id="n") << pushed(CDS, "a") << pushed(EDS, "a")).end()


def test_endpoints_follow_changed_clusters_and_come_before_routes() -> None:
    play = started(SotwPlay(*SITE))
    (
        play
        >> edit(cluster("b"), plain(EDS, "b"), plain(LDS, "l", version=2), plain(RDS, "r", version=2))
        << pushed(CDS, "a", "b")
        << pushed(EDS, "b")
        << pushed(LDS, "l")
        << pushed(RDS, "r")
        >> edit(cluster("a", version=2))
        << pushed(CDS, "a", "b")
        << pushed(EDS, "a")
    ).end()


def test_a_cluster_leaves_after_the_routes_are_acknowledged() -> None:
    play = started(SotwPlay(*SITE))
    (
        play
        >> edit(cluster("b"), plain(RDS, "r", version=2), remove=[(CDS, "a"), (EDS, "a")])
        << pushed(CDS, "a", "b")
        << pushed(RDS, "r")
        >> ack(RDS)
        << acked(RDS)
        << pushed(CDS, "b")
    ).end()


def test_a_listener_leaves_with_the_next_set() -> None:
    play = started(SotwPlay(*SITE))
    (play >> edit(remove=[(LDS, "l")]) << pushed(LDS) >> edit(remove=[(RDS, "r")])).end()


def test_a_refused_set_is_not_sent_again_until_it_changes() -> None:
    play = started(SotwPlay(*SITE))
    (
        play
        >> edit(cluster("b"))
        << pushed(CDS, "a", "b")
        >> nack(CDS)
        << nacked(CDS, "bad", "a", "b")
        >> After(60)
        >> edit(cluster("b", version=2))
        << pushed(CDS, "a", "b")
    ).end()
    assert play.session.state().types[CDS].nack == "bad"
    (play >> ack(CDS) << acked(CDS)).end()
    assert play.session.state().types[CDS].nack == ""


def test_refused_resources_that_can_be_sent_apart_are() -> None:
    play = SotwPlay(plain(RDS, "a"), plain(RDS, "b"))
    (
        play
        >> want(RDS, "a", "b", node_id="n")
        << pushed(RDS, "a", "b")
        >> nack(RDS)
        << nacked(RDS, "bad", "a", "b")
        << pushed(RDS, "a")
        >> ack(RDS)
        << acked(RDS)
        << pushed(RDS, "b")
        >> nack(RDS, "b is bad")
        << nacked(RDS, "b is bad", "b")
    ).end()
    assert play.session.state().types[RDS].refused == ("b",)


def test_nothing_is_answered_before_the_group_is_ready() -> None:
    play = SotwPlay(cluster("a"), ready=False)
    (play >> want(CDS, version="old", node_id="n")).end()
    changes = play.cache.mark_ready(GROUP)
    assert changes is not None
    (play >> changes << pushed(CDS, "a")).end()


def test_names_in_one_request_are_limited() -> None:
    play = SotwPlay(limits=Limits(names=1))
    (play >> want(EDS, "a", "b", node_id="n") << Closed("RESOURCE_EXHAUSTED")).end()
