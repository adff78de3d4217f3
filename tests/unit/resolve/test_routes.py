from __future__ import annotations

import pytest

from meshgw.engine import Graph
from meshgw.ir.keys import RouteKey
from meshgw.ir.route import (
    Backend,
    Filters,
    HeaderEdit,
    Match,
    PathKind,
    PathMatch,
    RefsReason,
    Retry,
    Rewrite,
    SessionPersistence,
)
from meshgw.resolve import tables as t
from tests.unit.resolve.route_graph import FACTS, STEPS, World, codes, http_route, parse, service, web

TO_WEB = "backendRefs: [{name: web, port: 80}]"
BAD = "matches: [{path: {type: RegularExpression, value: '('}}, {path: {value: /bad}}]"


def grpc_route(rules: str) -> str:
    return f"---\nkind: GRPCRoute\nmetadata: {{name: r, namespace: default}}\nspec: {{rules: {rules}}}\n"


def test_a_route_without_rules_takes_all_and_answers_500() -> None:
    world = World("---\nkind: HTTPRoute\nmetadata: {name: r, namespace: default}\nspec: {}")
    route = world.route("r")
    (rule,) = route.rules
    assert rule.matches[0].path == PathMatch(PathKind.PREFIX, "/")
    assert (rule.backends, rule.error) == ((), "")
    assert route.refs is RefsReason.RESOLVED
    assert codes(route.findings) == ["MG2004"]


def test_rules_keep_their_order_names_and_weights() -> None:
    world = World(
        service()
        + service("v2")
        + http_route(
            f"[{{name: one, {TO_WEB}}}, {{name: two, backendRefs: [{{name: web, port: 80, "
            "weight: 9}, {name: v2, port: 80, weight: 0}]}]",
            created="2026-01-01T00:00:00Z",
        )
    )
    route = world.route("r")
    assert [rule.name for rule in route.rules] == ["one", "two"]
    assert route.rules[1].backends == (Backend(target=web(), weight=9), Backend(target=web(name="v2"), weight=0))
    assert route.created == "2026-01-01T00:00:00Z"
    assert route.findings == ()


def test_backends_without_any_weight_are_none() -> None:
    world = World(service() + http_route("[{backendRefs: [{name: web, port: 80, weight: 0}]}]"))
    assert world.rule("r").backends == ()
    assert codes(world.route("r").findings) == ["MG2004"]


def test_a_redirect_needs_no_backends() -> None:
    world = World(http_route("[{filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}]"))
    assert world.rule("r").filters.redirect is not None
    assert world.route("r").findings == ()


def test_a_bad_backend_costs_its_share_only() -> None:
    world = World(service() + http_route("[{backendRefs: [{name: web, port: 80}, {name: gone, port: 80, weight: 3}]}]"))
    assert world.rule("r").backends == (Backend(target=web()), Backend(target=None, weight=3))
    route = world.route("r")
    assert (route.refs, route.refs_message) == (RefsReason.NOT_FOUND, "Service default/gone does not exist")
    assert (route.partially_invalid, route.invalid) == ("", "")
    assert [(f.code, f.field) for f in route.findings] == [("MG2001", "spec.rules[0].backendRefs[1]")]


def test_the_gravest_reference_names_the_reason() -> None:
    refs = "[{name: gone, port: 80}, {name: web, namespace: other, port: 80}, {kind: Pod, name: p}]"
    world = World(service() + http_route(f"[{{backendRefs: {refs}}}]"))
    route = world.route("r")
    assert route.refs is RefsReason.INVALID_KIND
    assert route.refs_message.count("; ") == 2
    assert codes(route.findings) == ["MG2001", "MG2002", "MG2003"]


def test_many_messages_are_cut() -> None:
    refs = ", ".join(f"{{name: gone{number}, port: 80}}" for number in range(8))
    world = World(http_route(f"[{{backendRefs: [{refs}]}}]"))
    assert world.route("r").refs_message.endswith("; and 3 more")


def test_a_service_that_appears_mends_the_route() -> None:
    world = World(http_route(f"[{{{TO_WEB}}}]"))
    assert world.route("r").refs is RefsReason.NOT_FOUND
    world.put(service())
    assert world.route("r").refs is RefsReason.RESOLVED
    assert world.rule("r").backends == (Backend(target=web()),)


def test_a_grant_that_goes_closes_the_backend() -> None:
    grant = (
        "---\nkind: ReferenceGrant\nmetadata: {name: g, namespace: other}\nspec: {from: [{group: "
        "gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}], to: [{group: '', kind: Service}]}\n"
    )
    rule = "[{backendRefs: [{name: web, namespace: other, port: 80}]}]"
    world = World(service(namespace="other") + grant + http_route(rule))
    assert world.rule("r").backends == (Backend(target=web(namespace="other")),)
    world.remove(t.REFERENCE_GRANTS, *world.graph.rows(t.REFERENCE_GRANTS))
    assert world.rule("r").backends == (Backend(target=None),)
    assert world.route("r").refs is RefsReason.NOT_PERMITTED


def test_a_rule_that_cannot_be_served_changes_nothing_else() -> None:
    world = World(service() + http_route(f"[{{name: bad, {BAD}, {TO_WEB}}}, {{{TO_WEB}}}]"))
    bad, good = world.route("r").rules
    assert [match.path.value for match in bad.matches] == ["/bad"]
    assert (bad.backends, bad.filters) == ((), Filters())
    assert bad.error.startswith("regular expression '(' is not RE2")
    assert good == World(service() + http_route(f"[{{{TO_WEB}}}]")).rule("r")
    route = world.route("r")
    assert route.partially_invalid.startswith("Dropped Rule(s): bad: ")
    assert route.invalid == ""
    assert codes(route.findings) == ["MG4002"]


def test_a_route_of_bad_rules_only_is_invalid_as_a_whole() -> None:
    world = World(http_route(f"[{{{BAD}}}]"))
    route = world.route("r")
    assert route.partially_invalid == ""
    assert route.invalid.startswith("0: ")


@pytest.mark.parametrize("scope", ["filters", "backendRefs"])
def test_an_unserved_filter_answers_500_where_it_stands(scope: str) -> None:
    extension = "filters: [{type: ExtensionRef, extensionRef: {group: x, kind: Y, name: z}}]"
    rule = f"{extension}, {TO_WEB}" if scope == "filters" else f"backendRefs: [{{name: web, port: 80, {extension}}}]"
    world = World(service() + http_route(f"[{{{rule}}}]"))
    assert codes(world.route("r").findings) == ["MG4003"]
    if scope == "filters":
        assert world.rule("r").error
    else:
        assert (world.rule("r").error, world.rule("r").backends) == ("", (Backend(target=None),))


def test_filters_of_a_backend_are_its_own() -> None:
    filters = (
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: b}]}}, "
        "{type: URLRewrite, urlRewrite: {hostname: x.example}}]"
    )
    world = World(service() + http_route(f"[{{backendRefs: [{{name: web, port: 80, {filters}}}]}}]"))
    own = Filters(request=HeaderEdit(set=(("a", "b"),)), rewrite=Rewrite(hostname="x.example"))
    assert world.rule("r").backends == (Backend(target=web(), filters=own),)
    assert world.rule("r").filters == Filters()


def test_a_backend_cannot_replace_the_rules_authorizer() -> None:
    auth = "filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: web, port: 80}}}]"
    world = World(service() + http_route(f"[{{{auth}, backendRefs: [{{name: web, port: 80, {auth}}}]}}]"))
    assert world.rule("r").backends == (Backend(target=None),)
    assert codes(world.route("r").findings) == ["MG4001"]


def test_timeouts_are_in_milliseconds() -> None:
    world = World(
        service()
        + http_route(
            f"[{{timeouts: {{request: 1m30s, backendRequest: 500ms}}, {TO_WEB}}}, {{"
            f"timeouts: {{request: 0s}}, {TO_WEB}}}, {{{TO_WEB}}}]"
        )
    )
    first, second, third = world.route("r").rules
    assert (first.timeout, first.backend_timeout) == (90_000, 500)
    assert (second.timeout, second.backend_timeout) == (0, None)
    assert (third.timeout, third.backend_timeout) == (None, None)


def test_retries() -> None:
    world = World(
        service()
        + http_route(
            f"[{{retry: {{attempts: 3, codes: [503, 500], backoff: 100ms}}, {TO_WEB}}}, {{retry: {{}}, {TO_WEB}}}]"
        )
    )
    assert world.rule("r").retry == Retry(attempts=3, codes=(500, 503), backoff=100)
    assert world.rule("r", 1).retry == Retry(attempts=1)


def test_what_no_retry_can_be_is_an_error() -> None:
    from meshgw.api.http import HTTPRouteRetry
    from meshgw.api.meta import ObjectRef
    from meshgw.resolve.report import Report
    from meshgw.resolve.routes import _retry

    report = Report(ObjectRef("HTTPRoute", "default", "r"))
    _retry(report, "retry", HTTPRouteRetry(attempts=2**32, codes=(200,), backoff="soon"))
    assert [finding.field for finding in report.findings] == ["retry.attempts", "retry.codes", "retry.backoff"]


def session(fields: str) -> tuple[SessionPersistence | None, list[str]]:
    world = World(service() + http_route(f"[{{sessionPersistence: {fields}, {TO_WEB}}}]"))
    return world.rule("r").session, codes(world.route("r").findings)


def test_sessions() -> None:
    permanent = "{sessionName: s, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}"
    assert session("{sessionName: s}") == (SessionPersistence(name="s"), [])
    assert session("{sessionName: X-S, type: Header}") == (SessionPersistence(name="X-S", header=True), [])
    assert session(permanent) == (SessionPersistence(name="s", lifetime=3600), [])
    assert session(permanent.replace("1h", "10ms")) == (SessionPersistence(name="s", lifetime=1), [])
    assert session("{sessionName: s, absoluteTimeout: 1h}") == (SessionPersistence(name="s"), ["MG4006"])


@pytest.mark.parametrize("fields", ["{sessionName: 'a;b'}", "{cookieConfig: {lifetimeType: Permanent}}"])
def test_sessions_that_no_cookie_can_hold_are_errors(fields: str) -> None:
    assert session(fields) == (None, ["MG4001"])


def test_unnamed_sessions_get_stable_names_of_their_own() -> None:
    paths = ("/a", "/b", "/c")
    rules = [f"{{sessionPersistence: {{}}, matches: [{{path: {{value: {path}}}}}], {TO_WEB}}}" for path in paths]
    rules[2] = rules[2].replace("{", "{name: n, ", 1)
    orders = (rules, rules[::-1])
    worlds = [World(service() + http_route(f"[{', '.join(order)}]")) for order in orders]
    names = [[rule.session.name for rule in world.route("r").rules if rule.session] for world in worlds]
    assert names[0] == names[1][::-1]
    assert len(set(names[0])) == 3
    other = World(service() + http_route(f"[{', '.join(rules)}]", "other")).route("other")
    assert not {rule.session.name for rule in other.rules if rule.session} & set(names[0])


def test_grpc_routes_match_grpc_and_speak_it() -> None:
    first = f"name: n, matches: [{{method: {{service: a.B}}}}], sessionPersistence: {{sessionName: s}}, {TO_WEB}"
    rules = f"[{{{first}}}, {{}}]"
    world = World(service() + grpc_route(rules))
    first, second = world.route("r", "GRPCRoute").rules
    assert all(match.grpc for match in (*first.matches, *second.matches))
    assert first.backends == (Backend(target=web(protocol="grpc")),)
    assert first.session == SessionPersistence(name="s")
    assert codes(world.route("r", "GRPCRoute").findings) == ["MG2004"]


def test_a_bad_grpc_rule_answers_500() -> None:
    world = World(service() + grpc_route(f"[{{matches: [{{method: {{service: a/b}}}}], {TO_WEB}}}]"))
    assert world.rule("r", kind="GRPCRoute").error
    assert world.rule("r", kind="GRPCRoute").matches == ()


def test_routes_of_two_kinds_may_share_a_name() -> None:
    world = World(service() + http_route(f"[{{{TO_WEB}}}]") + grpc_route(f"[{{{TO_WEB}}}]"))
    assert set(world.graph.rows(t.ROUTES)) == {
        RouteKey("GRPCRoute", "default", "r"),
        RouteKey("HTTPRoute", "default", "r"),
    }


def test_a_route_of_a_service_may_send_to_that_service() -> None:
    text = http_route(f"[{{{TO_WEB}}}]").replace(
        "spec: {", "spec: {parentRefs: [{group: '', kind: Service, name: web}], "
    )
    world = World(service() + text)
    assert world.rule("r").backends == (Backend(target=web()),)


def test_one_route_edited_among_many_recompiles_alone() -> None:
    world = World(service() + "".join(http_route(f"[{{{TO_WEB}}}]", name=f"r{number}") for number in range(20)))
    delta = world.put(http_route(f"[{{name: new, {TO_WEB}}}]", name="r7"))
    assert delta.recomputed["routes"] == 1
    assert set(delta.changed(t.ROUTES)) == {RouteKey("HTTPRoute", "default", "r7")}


def test_endpoints_never_recompile_a_route() -> None:
    world = World(service() + http_route(f"[{{{TO_WEB}}}]"))
    world.claim("r")
    delta = world.put(
        "---\nkind: EndpointSlice\nmetadata: {name: s, namespace: default, labels: {kubernetes.io/service-name: web}}\n"
        "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1]}]\nports: [{port: 8080}]"
    )
    assert "routes" not in delta.recomputed
    assert delta.recomputed["endpoints"] == 1


def test_incremental_and_whole_builds_agree() -> None:
    import yaml

    texts = (service(), http_route(f"[{{{BAD}}}, {{{TO_WEB}}}]"), service(ports="[{port: 81}]"), service())
    grown = World()
    for text in texts:
        grown.put(text)
    whole = Graph(sources=FACTS, steps=STEPS, incremental=False)
    rows = [parse(document) for text in texts[1:] for document in yaml.safe_load_all(text)]
    whole.commit({t.SERVICES: {rows[-1].key: rows[-1]}, t.HTTP_ROUTES: {rows[0].key: rows[0]}})
    assert whole.rows(t.ROUTES) == grown.graph.rows(t.ROUTES)


def test_errors_leave_no_match_that_takes_more_than_was_asked() -> None:
    only_bad = "matches: [{path: {type: RegularExpression, value: '('}}]"
    world = World(service() + http_route(f"[{{{only_bad}, {TO_WEB}}}, {{{TO_WEB}}}]"))
    assert world.rule("r").matches == ()
    assert isinstance(world.rule("r", 1).matches[0], Match)
