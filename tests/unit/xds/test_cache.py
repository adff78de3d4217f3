import pytest

from meshgw.emit.resource import Resource
from meshgw.xds.cache import Cache, Changes
from tests.unit.xds.playbook import CDS, EDS, GROUP, LDS, RDS, SDS, cluster, edit, plain

A = (CDS, "a")


def filled(*resources: Resource) -> Cache:
    cache = Cache()
    cache.apply(GROUP, edit(*resources).changes, now=0, ready=True)
    return cache


def names(cache: Cache, type_url: str = CDS) -> set[str]:
    group = cache.attach(GROUP, 99, "spy")
    del group.settled[99]
    return set(group.entries(type_url))


def test_changes_name_what_changed_and_what_is_new() -> None:
    cache = filled(cluster("a"), plain(EDS, "e"))
    edits = edit(cluster("a", version=2), cluster("b"), plain(EDS, "e"), plain(RDS, "r"))
    assert cache.apply(GROUP, edits.changes, now=0) == Changes(
        GROUP,
        {CDS: frozenset({"a", "b"}), RDS: frozenset({"r"})},
        {CDS: frozenset({"b"}), RDS: frozenset({"r"})},
    )


def test_removing_what_is_not_there_changes_nothing() -> None:
    assert filled().apply(GROUP, {A: None}, now=0) == Changes(GROUP)


def test_a_resource_is_encoded_once_and_not_again_for_an_equal_version() -> None:
    cache = filled(cluster("a"))
    group = cache.attach(GROUP, 1, "n")
    before = group.entries(CDS)["a"]
    cache.apply(GROUP, edit(cluster("a")).changes, now=0)
    assert group.entries(CDS)["a"] is before


def test_a_set_version_depends_on_content_alone() -> None:
    one, other = filled(cluster("a"), cluster("b")), filled(cluster("b", version=7), cluster("c"))
    first, second = one.attach(GROUP, 1, "n"), other.attach(GROUP, 1, "n")
    assert first.version(CDS) != second.version(CDS)
    other.detach(GROUP, 1, "n", now=0)
    other.expire(now=30)
    other.apply(GROUP, edit(cluster("a"), cluster("b"), remove=[(CDS, "c")]).changes, now=30)
    assert first.version(CDS) == second.version(CDS)
    assert first.version(EDS) == "0" * 16


def test_nothing_lingers_when_no_proxy_ever_came() -> None:
    cache = filled(cluster("a"))
    assert cache.apply(GROUP, {A: None}, now=0).names == {CDS: frozenset({"a"})}
    assert names(cache) == set()


@pytest.mark.parametrize("type_url", [CDS, EDS, SDS])
def test_what_routes_lean_on_lingers_until_every_proxy_has_settled(type_url: str) -> None:
    cache = filled(plain(type_url, "a"))
    cache.attach(GROUP, 1, "n")
    cache.attach(GROUP, 2, "m")
    assert cache.apply(GROUP, {(type_url, "a"): None}, now=0) == Changes(GROUP)
    assert cache.settle(GROUP, 1, 2, now=0) is None
    assert cache.settle(GROUP, 2, 1, now=0) is None
    assert names(cache, type_url) == {"a"}
    assert cache.settle(GROUP, 2, 2, now=0) == Changes(GROUP, {type_url: frozenset({"a"})})
    assert names(cache, type_url) == set()


@pytest.mark.parametrize("type_url", [LDS, RDS])
def test_listeners_and_routes_go_at_once(type_url: str) -> None:
    cache = filled(plain(type_url, "a"))
    cache.attach(GROUP, 1, "n")
    assert cache.apply(GROUP, {(type_url, "a"): None}, now=0).names == {type_url: frozenset({"a"})}


def test_lingering_is_bounded() -> None:
    cache = filled(cluster("a"))
    cache.attach(GROUP, 1, "n")
    cache.apply(GROUP, {A: None}, now=5)
    cache.apply(GROUP, {A: None}, now=20)
    assert cache.expire(now=34.9) == []
    assert cache.expire(now=35) == [Changes(GROUP, {CDS: frozenset({"a"})})]


def test_what_comes_back_stops_leaving() -> None:
    cache = filled(cluster("a"))
    cache.attach(GROUP, 1, "n")
    cache.apply(GROUP, {A: None}, now=0)
    assert cache.apply(GROUP, edit(cluster("a")).changes, now=1) == Changes(GROUP)
    assert cache.settle(GROUP, 1, 3, now=1) is None
    assert cache.expire(now=100) == []
    assert names(cache) == {"a"}


def test_a_departed_proxy_is_waited_for_until_the_bound() -> None:
    cache = filled(cluster("a"))
    cache.attach(GROUP, 1, "n")
    cache.attach(GROUP, 2, "m")
    cache.detach(GROUP, 1, "n", now=0)
    cache.apply(GROUP, {A: None}, now=20)
    assert cache.settle(GROUP, 2, 2, now=20) is None
    assert cache.expire(now=30) == [Changes(GROUP, {CDS: frozenset({"a"})})]


def test_a_proxy_that_comes_back_takes_its_own_place() -> None:
    cache = filled(cluster("a"))
    cache.attach(GROUP, 1, "n")
    cache.detach(GROUP, 1, "n", now=0)
    group = cache.attach(GROUP, 2, "n")
    cache.apply(GROUP, {A: None}, now=1)
    assert group.settled == {2: 0}
    assert cache.settle(GROUP, 2, 2, now=2) is not None


def test_two_streams_of_one_node_that_both_end_leave_one_place() -> None:
    cache = filled()
    group = cache.attach(GROUP, 1, "n")
    cache.attach(GROUP, 2, "n")
    cache.detach(GROUP, 1, "n", now=0)
    cache.detach(GROUP, 2, "n", now=0)
    assert group.settled == {2: 0}
    cache.expire(now=30)
    assert group.settled == {}


def test_ready_comes_once_and_names_everything() -> None:
    cache = Cache()
    cache.apply(GROUP, edit(cluster("a"), plain(LDS, "l")).changes, now=0)
    assert cache.mark_ready(GROUP) == Changes(GROUP, {CDS: frozenset({"a"}), LDS: frozenset({"l"})})
    assert cache.mark_ready(GROUP) is None


def test_a_commit_that_makes_ready_names_everything() -> None:
    cache = Cache()
    cache.apply(GROUP, edit(cluster("a")).changes, now=0)
    assert cache.apply(GROUP, {}, now=0, ready=True).names == {CDS: frozenset({"a"})}
    assert cache.apply(GROUP, {}, now=0, ready=True).names == {}


def test_groups_do_not_mix() -> None:
    cache = filled(cluster("a"))
    cache.apply("other", edit(cluster("b")).changes, now=0, ready=True)
    assert names(cache) == {"a"}


def test_a_group_that_only_a_proxy_named_goes_with_its_last_proxy() -> None:
    cache = Cache()
    first = cache.attach("unknown", 1, "n")
    cache.attach("unknown", 2, "m")
    cache.detach("unknown", 1, "n", now=0)
    assert cache.attach("unknown", 3, "o") is first
    for proxy in (2, 3):
        cache.detach("unknown", proxy, "m", now=0)
    assert cache.attach("unknown", 4, "p") is not first


def test_a_forgotten_group_is_silent_and_starts_anew() -> None:
    cache = filled(cluster("a"))
    group = cache.attach(GROUP, 1, "n")
    cache.forget(GROUP)
    cache.forget(GROUP)
    assert not group.ready
    assert cache.settle(GROUP, 1, 1, now=0) is None
    cache.detach(GROUP, 1, "n", now=0)
    assert names(cache) == set()


def test_bodies_never_show() -> None:
    group = filled(Resource.of(SDS, "key", b"PRIVATE")).attach(GROUP, 1, "n")
    assert "PRIVATE" not in repr(group.entries(SDS))
