"""Playbooks of what a stream follows: subscribing, and resuming with what the proxy still holds."""

from meshgw.xds.events import Received, Send, Writable
from meshgw.xds.session import RESUME_GRACE
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
    cluster,
    edit,
    plain,
    pushed,
    subscribe,
    versions,
)

# Subscribing


def test_an_empty_first_request_subscribes_to_all_clusters_and_listeners() -> None:
    play = Play(cluster("a"), cluster("b"), plain(LDS, "l"))
    (play >> subscribe(CDS, node_id="n") << pushed(CDS, "a", "b") >> subscribe(LDS) << pushed(LDS, "l")).end()


def test_a_star_subscribes_to_all_and_later_to_names_besides() -> None:
    play = Play(cluster("a"))
    (play >> subscribe(CDS, "*", node_id="n") << pushed(CDS, "a") >> subscribe(CDS, "b") << pushed(CDS, "-b")).end()


def test_a_wildcard_is_answered_even_when_there_is_nothing() -> None:
    (Play() >> subscribe(CDS, node_id="n") << pushed(CDS)).end()


def test_asking_for_the_wildcard_twice_answers_once() -> None:
    (Play(cluster("a")) >> subscribe(CDS, "*", node_id="n") << pushed(CDS, "a") >> subscribe(CDS, "*")).end()


def test_a_star_is_an_ordinary_name_where_resources_are_on_demand() -> None:
    (Play(plain(SDS, "key")) >> subscribe(SDS, "*", node_id="n") << pushed(SDS, "-*")).end()


def test_an_empty_first_request_for_endpoints_asks_for_nothing() -> None:
    (Play(plain(EDS, "a")) >> subscribe(EDS, node_id="n")).end()


def test_named_resources_come_on_demand_and_missing_ones_are_said_to_be_missing() -> None:
    play = Play(plain(EDS, "a"), plain(EDS, "b"))
    (play >> subscribe(EDS, "a", "x", node_id="n") << pushed(EDS, "a", "-x")).end()


def test_a_missing_name_is_sent_once_it_exists() -> None:
    play = Play()
    (
        play
        >> subscribe(RDS, "r", node_id="n")
        << pushed(RDS, "-r")
        >> ack(RDS)
        << acked(RDS)
        >> edit(ROUTES)
        << pushed(RDS, "r")
    ).end()


def test_subscribing_again_sends_again() -> None:
    play = Play(plain(EDS, "a"))
    (play >> subscribe(EDS, "a", node_id="n") << pushed(EDS, "a") >> subscribe(EDS, "a") << pushed(EDS, "a")).end()


def test_an_unsubscribed_name_is_followed_no_more() -> None:
    play = Play(plain(EDS, "a"))
    (
        play
        >> subscribe(EDS, "a", node_id="n")
        << pushed(EDS, "a")
        >> subscribe(EDS, drop=["a", "never-asked"])
        >> edit(plain(EDS, "a", version=2))
    ).end()


def test_dropping_a_name_under_a_wildcard_tells_what_the_wildcard_says() -> None:
    play = Play(cluster("a"))
    (
        play
        >> subscribe(CDS, "*", "a", "x", node_id="n")
        << pushed(CDS, "a", "-x")
        >> subscribe(CDS, drop=["a", "x"])
        << pushed(CDS, "a", "-x")
    ).end()


def test_dropping_the_wildcard_leaves_the_names() -> None:
    play = Play(cluster("a"), cluster("b"))
    (
        play
        >> subscribe(CDS, "*", "a", node_id="n")
        << pushed(CDS, "a", "b")
        >> subscribe(CDS, drop=["*"])
        >> edit(cluster("b", version=2))
        >> edit(cluster("a", version=2))
        << pushed(CDS, "a")
    ).end()


def test_types_nobody_publishes_are_answered_as_absent() -> None:
    (Play() >> subscribe("type.googleapis.com/x.Y", "n", node_id="n") << pushed("type.googleapis.com/x.Y", "-n")).end()


def test_a_group_that_is_not_ready_answers_nothing_until_it_is() -> None:
    play = Play(cluster("a"), ready=False)
    (play >> subscribe(CDS, node_id="n") >> subscribe(EDS, "a")).end()
    play >>= edit(plain(EDS, "a"))
    play.end()
    changes = play.cache.mark_ready(GROUP)
    assert changes is not None
    (play >> changes << pushed(CDS, "a") << pushed(EDS, "a")).end()


# Resuming


def test_a_resumed_stream_gets_only_what_differs() -> None:
    play = Play(*SITE, cluster("b"))
    held = versions(cluster("a"), cluster("b", version=0))
    (
        play
        >> subscribe(CDS, versions=held, node_id="n")
        << pushed(CDS, "b")
        >> subscribe(EDS, "a", "b", versions=versions(plain(EDS, "a")))
        << pushed(EDS, "-b")
        >> subscribe(LDS, versions=versions(LISTENER))
        >> subscribe(RDS, "r", versions=versions(ROUTES))
    ).end()


def test_versions_count_only_for_the_first_request_of_a_type_and_for_wanted_names() -> None:
    play = Play(plain(EDS, "a"), plain(EDS, "b"))
    (
        play
        >> subscribe(EDS, "a", versions=versions(plain(EDS, "a"), plain(EDS, "z")), node_id="n")
        >> subscribe(EDS, "b", versions=versions(plain(EDS, "b")))
        << pushed(EDS, "b")
    ).end()
    assert play.session.state().types[EDS].resources == 2


def test_a_resumed_stream_gets_endpoints_behind_new_clusters_before_it_asks() -> None:
    play = Play(*SITE)
    play.writable = False
    (
        play
        >> subscribe(CDS, versions={"old": "1"}, node_id="n")
        >> subscribe(EDS, "a", versions=versions(plain(EDS, "a")))
        >> subscribe(LDS, versions={"l": "0"})
        >> subscribe(RDS, "r", versions={"r": "0"})
    ).end()
    play.writable = True
    (
        play
        >> After(0)
        << pushed(CDS, "a")
        << pushed(EDS, "a")
        << pushed(LDS, "l")
        << pushed(RDS, "r")
        >> ack(LDS)
        << acked(LDS)
        >> ack(RDS)
        << acked(RDS)
        << pushed(CDS, "-old")
    ).end()


def test_endpoints_owed_to_a_changed_cluster_survive_the_resumed_request_for_them() -> None:
    play = Play(*SITE)
    play.session.handle(Received(subscribe(CDS, versions={"a": "0"}, node_id="n"), play.now))
    first = play.session.handle(Writable(play.now))
    assert [command.type_url for command in first if isinstance(command, Send)] == [CDS]
    (play >> subscribe(EDS, "a", versions=versions(plain(EDS, "a"))) << pushed(EDS, "a")).end()


def test_what_vanished_meanwhile_stays_until_the_proxy_has_moved_its_routes() -> None:
    play = Play(ROUTES)
    (
        play
        >> subscribe(CDS, versions={"old": "1"}, node_id="n")
        >> subscribe(RDS, "r", versions={"r": "0"})
        << pushed(RDS, "r")
        >> After(RESUME_GRACE)
        >> ack(RDS)
        << acked(RDS)
        << pushed(CDS, "-old")
    ).end()


def test_what_vanished_goes_after_a_grace_if_no_routes_are_asked_for() -> None:
    play = Play()
    (play >> subscribe(CDS, versions={"old": "1"}, node_id="n")).end()
    (play >> After(RESUME_GRACE / 2)).end()
    assert play.settled == 0
    (play >> After(RESUME_GRACE / 2) << pushed(CDS, "-old")).end()
    assert play.settled == 1


def test_what_vanished_goes_after_the_bound_even_if_routes_are_never_acknowledged() -> None:
    play = Play(ROUTES)
    (
        play
        >> subscribe(CDS, versions={"old": "1"}, node_id="n")
        >> subscribe(RDS, "r", versions={"r": "0"})
        << pushed(RDS, "r")
        >> After(29)
        >> After(1)
        << pushed(CDS, "-old")
    ).end()
