"""Which rule takes a request: paths, methods, headers, query parameters, hosts, and the precedence among them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tests.envoy.gateway import Document, Site, gateway, listener, path, route, site, to
from tests.rig.backends import Backends


def header(name: str, value: str, kind: str = "Exact") -> Document:
    return {"type": kind, "name": name, "value": value}


Serving = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def serving(loopback: str, backends: Backends) -> Serving:
    """Serves objects beside the Services a, b, c and d, each answering with its name."""

    def run(*documents: Document) -> AbstractAsyncContextManager[Site]:
        return site(loopback, backends, *documents, names="abcd")

    return run


async def test_an_exact_path_matches_itself_alone(serving: Serving) -> None:
    async with serving(gateway(), route([to("a", path("Exact", "/one"))])) as served:
        assert await served.pods(1, "/one") == ["a"]
        assert await served.pods(1, "/one?query=1") == ["a"]
        for other in ("/one/", "/one/two", "/ONE", "/on", "/"):
            assert await served.pods(1, other) == ["404"], other


async def test_a_prefix_matches_whole_segments(serving: Serving) -> None:
    async with serving(gateway(), route([to("a", path("PathPrefix", "/one"))])) as served:
        for inside in ("/one", "/one/", "/one/two", "/one?q"):
            assert await served.pods(1, inside) == ["a"], inside
        for outside in ("/onetwo", "/on", "/", "/One"):
            assert await served.pods(1, outside) == ["404"], outside


async def test_a_trailing_slash_of_a_prefix_means_nothing(serving: Serving) -> None:
    async with serving(gateway(), route([to("a", path("PathPrefix", "/one/"))])) as served:
        assert await served.pods(1, "/one") == ["a"]
        assert await served.pods(1, "/one/two") == ["a"]
        assert await served.pods(1, "/onetwo") == ["404"]


async def test_a_regular_expression_matches_the_whole_path_without_the_query(serving: Serving) -> None:
    async with serving(gateway(), route([to("a", path("RegularExpression", "/v[0-9]+/x"))])) as served:
        assert await served.pods(1, "/v12/x?y=z") == ["a"]
        assert await served.pods(1, "/v12/xx") == ["404"]
        assert await served.pods(1, "/a/v12/x") == ["404"]


async def test_more_precise_paths_win_whatever_their_order(serving: Serving) -> None:
    rules = [
        to("a", path("PathPrefix", "/")),
        to("b", path("PathPrefix", "/shop")),
        to("c", path("PathPrefix", "/shop/cart")),
        to("d", path("Exact", "/shop/cart")),
    ]
    async with serving(gateway(), route(rules)) as served:
        wanted = {"/": "a", "/x": "a", "/shop": "b", "/shop/x": "b", "/shop/cart/x": "c", "/shop/cart": "d"}
        assert {asked: (await served.pods(1, asked))[0] for asked in wanted} == wanted


async def test_more_precise_paths_win_across_routes(serving: Serving) -> None:
    first = route([to("a", path("PathPrefix", "/shop"))], name="first")
    second = route([to("b", path("PathPrefix", "/shop/cart")), to("c", path("Exact", "/shop"))], name="second")
    async with serving(gateway(), first, second) as served:
        wanted = {"/shop/x": "a", "/shop/cart/x": "b", "/shop": "c"}
        assert {asked: (await served.pods(1, asked))[0] for asked in wanted} == wanted


async def test_the_older_of_two_equal_routes_wins(serving: Serving) -> None:
    young = route([to("a")], name="a-young", creationTimestamp="2024-06-01T00:00:00Z")
    old = route([to("b")], name="z-old", creationTimestamp="2024-01-01T00:00:00Z")
    async with serving(gateway(), young, old) as served:
        assert await served.pods(3) == ["b"] * 3


async def test_the_first_name_of_equally_old_routes_wins(serving: Serving) -> None:
    when = "2024-01-01T00:00:00Z"
    routes = [route([to(pod)], name=name, creationTimestamp=when) for name, pod in (("zeta", "a"), ("alpha", "b"))]
    async with serving(gateway(), *routes) as served:
        assert await served.pods(3) == ["b"] * 3


async def test_the_first_of_equal_rules_wins(serving: Serving) -> None:
    async with serving(gateway(), route([to("c"), to("a"), to("b")])) as served:
        assert await served.pods(3) == ["c"] * 3


async def test_a_method_narrows_a_path(serving: Serving) -> None:
    rules = [to("a"), to("b", path("PathPrefix", "/", method="POST")), to("c", path("Exact", "/x"))]
    async with serving(gateway(), route(rules)) as served:
        assert (await served.get("/y")).pod == "a"
        assert (await served.request("POST", "/y")).pod == "b"
        assert (await served.request("POST", "/x")).pod == "c"  # the path counts for more


async def test_headers_match_by_name_in_any_case_and_value_in_its_own(serving: Serving) -> None:
    rules = [to("a", {"headers": [header("X-Color", "Blue")]})]
    async with serving(gateway(), route(rules)) as served:
        assert await served.pods(1, headers={"x-color": "Blue"}) == ["a"]
        assert await served.pods(1, headers={"X-COLOR": "Blue"}) == ["a"]
        for value in ("blue", "Blue2", ""):
            assert await served.pods(1, headers={"x-color": value}) == ["404"], value
        assert await served.pods(1) == ["404"]


async def test_a_header_expression_matches_the_whole_value(serving: Serving) -> None:
    rules = [to("a", {"headers": [header("version", "v[0-9]+", "RegularExpression")]})]
    async with serving(gateway(), route(rules)) as served:
        assert await served.pods(1, headers={"version": "v12"}) == ["a"]
        assert await served.pods(1, headers={"version": "v12-beta"}) == ["404"]


async def test_all_headers_of_a_match_must_be_there_and_more_of_them_win(serving: Serving) -> None:
    one, two = header("x-one", "1"), header("x-two", "2")
    rules = [to("a"), to("b", {"headers": [one]}), to("c", {"headers": [one, two]})]
    async with serving(gateway(), route(rules)) as served:
        assert await served.pods(1, headers={"x-one": "1"}) == ["b"]
        assert await served.pods(1, headers={"x-one": "1", "x-two": "2"}) == ["c"]
        assert await served.pods(1, headers={"x-two": "2"}) == ["a"]


async def test_query_parameters_match_by_name_and_value_in_their_case(serving: Serving) -> None:
    rules = [
        to("a", {"queryParams": [header("animal", "whale")]}),
        to("b", {"queryParams": [header("ANIMAL", "Whale")]}),
        to("c", {"queryParams": [header("animal", "dol.+", "RegularExpression")]}),
        to("d", {"queryParams": [header("animal", "whale"), header("color", "blue")]}),
    ]
    async with serving(gateway(), route(rules)) as served:
        wanted = {
            "/?animal=whale": "a",
            "/?x=1&animal=whale&y": "a",
            "/?ANIMAL=Whale": "b",
            "/?animal=dolphin": "c",
            "/?animal=whale&color=blue": "d",
            "/?color=blue": "404",
            "/?animal=": "404",
        }
        assert {asked: (await served.pods(1, asked))[0] for asked in wanted} == wanted


async def test_headers_count_for_more_than_query_parameters(serving: Serving) -> None:
    many = {"queryParams": [header("q", "1"), header("r", "1")]}
    rules = [to("a", many), to("b", {"headers": [header("x", "1")]})]
    async with serving(gateway(), route(rules)) as served:
        assert await served.pods(1, "/?q=1&r=1", headers={"x": "1"}) == ["b"]


async def test_any_match_of_a_rule_is_enough(serving: Serving) -> None:
    rules = [to("a", path("Exact", "/x"), {"headers": [header("x", "1")]})]
    async with serving(gateway(), route(rules)) as served:
        assert await served.pods(1, "/x") == ["a"]
        assert await served.pods(1, "/y", headers={"x": "1"}) == ["a"]
        assert await served.pods(1, "/y") == ["404"]


async def test_hosts_match_exactly_or_below_a_wildcard(serving: Serving) -> None:
    exact = route([to("a")], "app.test", name="exact")
    wild = route([to("b")], "*.test", name="wild")
    deep = route([to("c")], "*.deep.test", name="deep")
    async with serving(gateway(), exact, wild, deep) as served:
        wanted = {
            "app.test": "a",
            "APP.test": "a",
            "other.test": "b",
            "x.app.test": "b",
            "x.deep.test": "c",
            "deep.test": "b",
            "x.y.deep.test": "c",
            "test": "404",
            "app.test.evil": "404",
        }
        assert {host: (await served.pods(1, host=host))[0] for host in wanted} == wanted


@pytest.mark.parametrize("host", ["app.test:80", "app.test:10080", "app.test:9", "app.test."])
async def test_a_port_or_final_dot_in_the_host_header_changes_nothing(serving: Serving, host: str) -> None:
    async with serving(gateway(), route([to("a")], "app.test")) as served:
        assert await served.pods(1, host=host) == ["a"]


async def test_a_route_serves_the_hosts_it_shares_with_the_listener(serving: Serving) -> None:
    only = gateway(listener(hostname="*.shop.test"))
    routes = [
        route([to("a")], "one.shop.test", "one.other.test", name="some"),
        route([to("b")], "*.test", name="wider"),
        route([to("c")], "nothing.test", name="none"),
    ]
    async with serving(only, *routes) as served:
        wanted = {"one.shop.test": "a", "two.shop.test": "b", "one.other.test": "404", "nothing.test": "404"}
        assert {host: (await served.pods(1, host=host))[0] for host in wanted} == wanted
        (parent,) = served.status("HTTPRoute", "none").parents
        assert {(c.type, c.status, c.reason) for c in parent.conditions} >= {
            ("Accepted", False, "NoMatchingListenerHostname")
        }


async def test_the_most_specific_listener_has_a_host_to_itself(serving: Serving) -> None:
    listeners = [
        listener("any"),
        listener("wild", hostname="*.example.test"),
        listener("deep", hostname="*.foo.example.test"),
        listener("exact", hostname="abc.foo.example.test"),
    ]
    routes = [
        route([to(pod, path("PathPrefix", f"/{name}"))], name=name, parents=[{"name": "gw", "sectionName": name}])
        for name, pod in (("any", "a"), ("wild", "b"), ("deep", "c"), ("exact", "d"))
    ]
    async with serving(gateway(*listeners), *routes) as served:
        owners = {
            "bar.test": "any",
            "x.example.test": "wild",
            "x.foo.example.test": "deep",
            "abc.foo.example.test": "exact",
        }
        pods = {"any": "a", "wild": "b", "deep": "c", "exact": "d"}
        for host, owner in owners.items():
            for name, pod in pods.items():
                wanted = pod if name == owner else "404"
                assert await served.pods(1, f"/{name}", host=host) == [wanted], (host, name)


async def test_a_request_line_with_an_absolute_url_goes_by_its_host(serving: Serving) -> None:
    async with serving(gateway(), route([to("a")], "a.test", name="a"), route([to("b")], "b.test", name="b")) as served:
        raw = b"GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
        answer = await served.raw(raw)
        assert b"x-echo-pod: b" in answer


async def test_a_host_without_route_is_404_and_says_nothing_else(serving: Serving) -> None:
    async with serving(gateway(), route([to("a")], "app.test")) as served:
        answer = await served.get(host="unknown.test")
        assert (answer.status, answer.body) == (404, b"")
