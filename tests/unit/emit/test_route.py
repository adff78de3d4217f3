from __future__ import annotations

from collections.abc import Iterable

from meshgw.emit import tables as out
from meshgw.emit.route import compile_fragments
from meshgw.emit.tables import Fragment
from meshgw.ir.route import (
    Backend,
    Filters,
    HeaderEdit,
    HostKind,
    Mirror,
    PathEdit,
    PathKind,
    PathMatch,
    Redirect,
    Rewrite,
    Rule,
)
from meshgw.ir.route import Route as CompiledRoute
from meshgw.protos import Route, VirtualHost
from meshgw.resolve import tables as t
from tests.unit.emit.world import CONFIG, NOTHING, World, backend, listener, match, route, target


def routes(*rules: Rule) -> list[Route]:
    return decoded(route(*rules))


def decoded(compiled: CompiledRoute) -> list[Route]:
    return join(fragment.body for fragment in fragments(compiled))


def fragments(compiled: CompiledRoute) -> tuple[Fragment, ...]:
    return compile_fragments(NOTHING, CONFIG, compiled, port=80, https=False)


def join(bodies: Iterable[bytes]) -> list[Route]:
    return list(VirtualHost.FromString(b"".join(bodies)).routes)


def prefix(value: str, *precedence: int) -> tuple[object, ...]:
    return (match(*precedence, path=PathMatch(PathKind.PREFIX, value)),)


def test_fragments_are_sorted_by_precedence_age_and_name() -> None:
    two = Rule(matches=(match(2), match(1)), backends=(backend(),))
    one = Rule(matches=(match(1),), backends=(backend(),))
    young = fragments(route(two, created="2024"))
    old = fragments(route(one, created="2023", name="z"))
    assert [fragment.order[0] for fragment in young] == [(1,), (2,)]
    assert min([*young, *old], key=lambda fragment: fragment.order) is old[0]


def test_a_rule_without_matches_comes_last() -> None:
    (fragment,) = fragments(route(Rule(backends=(backend(),))))
    assert fragment.order[0] > (10**9,)


def test_routes_carry_the_name_of_their_rule() -> None:
    first, second = routes(
        Rule(matches=(match(1),), backends=(backend(),)), Rule(matches=(match(2),), backends=(backend(),), name="named")
    )
    assert (first.name, second.name) == ("httproute/default/route/0", "httproute/default/route/named")


def test_bad_rules_answer_500_and_leave_the_others_alone() -> None:
    bad = Filters(request=HeaderEdit(set=(("a b", "x"),)))
    built = routes(
        Rule(matches=(match(1),), backends=(backend(),), error="invalid"),
        Rule(matches=(match(2),), backends=(backend(),), filters=bad),
        Rule(matches=(match(3),)),
        Rule(matches=(match(4),), backends=(backend(),)),
    )
    assert [item.direct_response.status for item in built] == [500, 500, 500, 0]
    assert built[3].route.cluster == "service/default/app/80"


def test_a_match_that_no_request_can_fulfil_is_left_out() -> None:
    (only,) = routes(Rule(matches=(match(1, path=PathMatch(PathKind.PREFIX, "/a?")), match(2)), backends=(backend(),)))
    assert only.match.prefix == "/"


def test_a_redirect_needs_no_backend_and_keeps_response_edits() -> None:
    filters = Filters(redirect=Redirect(scheme="https"), response=HeaderEdit(set=(("a", "b"),)))
    given, plain = routes(Rule(matches=prefix("/a"), filters=filters))
    assert given.redirect.port_redirect == 443
    assert given.match.headers[0].name == ":authority"
    assert plain.redirect.port_redirect == 0
    assert plain.response_headers_to_add[0].header.key == "a"


def test_backends_with_filters_of_their_own_split_by_cumulative_fractions() -> None:
    copy = Mirror(target=target("copy"))
    rule = Rule(
        matches=prefix("/a"),
        filters=Filters(rewrite=Rewrite(hostname="rule.test")),
        backends=(
            backend("one", 1, rewrite=Rewrite(path=PathEdit("/x", prefix=True))),
            backend("two", 2, mirrors=(copy,)),
            backend("three", 0, mirrors=(copy,)),
            Backend(target=None, weight=1),
        ),
    )
    one, two, last = routes(rule)
    assert [item.match.runtime_fraction.default_value.numerator for item in (one, two, last)] == [250_000, 750_000, 0]
    assert not last.match.HasField("runtime_fraction")
    assert (one.route.prefix_rewrite, one.route.host_rewrite_literal) == ("/x", "rule.test")
    assert [item.cluster for item in two.route.request_mirror_policies] == ["service/default/copy/80"]
    assert last.direct_response.status == 500


def test_a_share_too_small_to_express_gets_no_route() -> None:
    copy = Mirror(target=target("copy"))
    rule = Rule(matches=prefix("/a"), backends=(backend("one", 1, mirrors=(copy,)), backend("two", 9_000_000)))
    (only,) = routes(rule)
    assert only.route.cluster == "service/default/two/80"


def test_the_host_of_a_backend_beats_the_rules() -> None:
    rule = Rule(
        matches=prefix("/a"),
        filters=Filters(rewrite=Rewrite(hostname="rule.test")),
        backends=(backend(request=HeaderEdit(set=(("Host", "own.test"),))),),
    )
    (only,) = routes(rule)
    assert only.route.host_rewrite_literal == "own.test"


def test_fragments_are_made_once_however_many_hosts_a_route_claims() -> None:
    world, row = World(), listener()
    world.listen(row)
    world.serve(row, route(Rule(matches=(match(),), backends=(backend(),))), "a.test", "b.test")
    delta = world.commit()
    assert len(delta.changed(out.FRAGMENTS)) == 1
    key = next(iter(world.graph.rows(t.ROUTES)))
    changed = route(Rule(matches=(match(),), backends=(backend("other"),)))
    world.put(t.ROUTES, key, changed)
    delta = world.commit()
    assert (delta.recomputed["fragments"], delta.recomputed["virtual-hosts"]) == (1, 2)


def test_a_claim_of_a_route_that_is_gone_adds_nothing() -> None:
    world, row = World(), listener()
    world.claim(row, "*", route().key, HostKind.ROUTE)
    world.commit()
    assert world.graph.rows(out.FRAGMENTS) == {}
    assert len(world.graph.rows(out.VIRTUAL_HOSTS)) == 1


def test_a_rule_without_a_match_that_can_be_expressed_answers_what_nothing_else_takes() -> None:
    (page,) = decoded(route(Rule(error="bad")))
    (call,) = decoded(route(Rule(error="bad"), kind="GRPCRoute"))
    assert page.direct_response.status == call.direct_response.status == 500
    assert (page.match.prefix, call.match.prefix) == ("/", "/")
    assert (page.match.HasField("grpc"), call.match.HasField("grpc")) == (False, True)
    (fragment,) = fragments(route(Rule(error="bad")))
    assert fragment.order[0] > match(2**31).precedence
