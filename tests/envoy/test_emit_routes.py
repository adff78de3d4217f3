"""What compiled rules do to real requests: each test serves rows of the emit layer on one Envoy."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from meshgw.ir.keys import RouteKey
from meshgw.ir.route import (
    Backend,
    Cors,
    ExternalAuth,
    Filters,
    HeaderEdit,
    HostKind,
    Mirror,
    PathEdit,
    PathKind,
    PathMatch,
    Redirect,
    Retry,
    Rewrite,
    Rule,
    SessionPersistence,
    ValueMatch,
)
from tests.rig.backends import Backends
from tests.rig.clients import HttpClient, Response, grpc_call, websocket
from tests.rig.envoy import RunningEnvoy, run_static
from tests.unit.emit.world import World, backend, listener, match, route, target

PORT = 8080


class Site(msgspec.Struct):
    envoy: RunningEnvoy
    client: HttpClient
    address: tuple[str, int]

    async def get(self, path: str = "/", **options: object) -> Response:
        return await self.client.get(path, **{"host": "site.test", **options})


@asynccontextmanager
async def site(
    loopback: str, *rules: Rule, backends: dict[str, tuple[str, int]], world: World | None = None
) -> AsyncIterator[Site]:
    world = world or World(bind=loopback)
    row = listener("http", PORT)
    world.listen(row)
    world.serve(row, route(*rules))
    for name, address in backends.items():
        world.reach(target(name), address)
    world.commit()
    address = (loopback, PORT)
    async with run_static(world.static()) as envoy, HttpClient(address) as client:
        yield Site(envoy, client, address)


def path(kind: PathKind, value: str, *precedence: int) -> Rule:
    return Rule(matches=(match(*precedence, path=PathMatch(kind, value)),))


def under(prefix: str, precedence: int = 0, **rule: object) -> Rule:
    """A rule for a prefix, to the backend `app` unless told otherwise."""
    matches = (match(precedence, path=PathMatch(PathKind.PREFIX, prefix)),)
    return Rule(**{"matches": matches, "backends": (backend(),), **rule})


async def test_matches_choose_by_precedence(loopback: str, backends: Backends) -> None:
    pods = {
        name: (await backends.echo(name)).address for name in ("exact", "prefix", "regex", "header", "query", "app")
    }
    rules = (
        Rule(matches=(match(9),), backends=(backend("app"),)),
        Rule(matches=(match(1, path=PathMatch(PathKind.EXACT, "/a")),), backends=(backend("exact"),)),
        Rule(matches=(match(2, path=PathMatch(PathKind.PREFIX, "/a/")),), backends=(backend("prefix"),)),
        Rule(matches=(match(3, path=PathMatch(PathKind.REGEX, "/r[0-9]+")),), backends=(backend("regex"),)),
        Rule(
            matches=(
                match(4, headers=(ValueMatch("x-one", "1"), ValueMatch("x-two", "t.o", regex=True)), method="GET"),
            ),
            backends=(backend("header"),),
        ),
        Rule(matches=(match(5, query=(ValueMatch("q", "Cat"),)),), backends=(backend("query"),)),
    )
    async with site(loopback, *rules, backends=pods) as served:
        expected = {
            "/a": "exact", "/a/": "prefix", "/a/b": "prefix", "/ab": "app", "/r12": "regex", "/r12/x": "app",
            "/?q=Cat": "query", "/?q=cat": "app", "/A": "app",
        }  # fmt: skip
        assert {path: (await served.get(path)).pod for path in expected} == expected
        both = {"X-One": "1", "X-Two": "two"}
        assert (await served.get("/", headers=both)).pod == "header"
        assert (await served.get("/", headers={"X-One": "1"})).pod == "app"
        assert (await served.client.request("POST", "/", host="site.test", headers=both)).pod == "app"


async def test_hosts_choose_the_most_specific_and_ignore_ports(loopback: str, backends: Backends) -> None:
    world, row = World(bind=loopback), listener("http", PORT)
    names = ("any", "wild", "deep", "exact")
    pods = {name: (await backends.echo(name)).address for name in names}
    for name, domain in zip(names, ("*", "*.x.test", "*.y.x.test", "a.x.test"), strict=True):
        world.serve(row, route(Rule(matches=(match(),), backends=(backend(name),)), name=name), domain)
    world.claim(row, "elsewhere.test", RouteKey("", "", "other"), HostKind.MISDIRECTED)
    world.claim(row, "empty.test", RouteKey("", "", "http"), HostKind.EMPTY)
    world.claim(row, "direct.test", RouteKey("", "", "http"), HostKind.DEFAULT, target=target("exact"))
    async with site(loopback, backends=pods, world=world) as served:
        expected = {
            "other.test": "any", "b.x.test": "wild", "x.test": "any", "b.a.x.test": "wild", "z.y.x.test": "deep",
            "A.X.test": "exact", "a.x.test:1234": "exact", "a.x.test.": "exact", "direct.test": "exact",
        }  # fmt: skip
        assert {host: (await served.get(host=host)).pod for host in expected} == expected
        assert (await served.get(host="elsewhere.test")).status == 421
        assert (await served.get(host="empty.test")).status == 404


async def test_redirects_name_the_port_only_where_they_must(loopback: str) -> None:
    rules = (
        under("/https", filters=Filters(redirect=Redirect(scheme="https", status=301))),
        under("/host", filters=Filters(redirect=Redirect(hostname="other.test", status=303))),
        under("/same", filters=Filters(redirect=Redirect(path=PathEdit("/new"), status=307))),
        under("/port", filters=Filters(redirect=Redirect(port=9443, scheme="https", status=308))),
        under("/eighty", filters=Filters(redirect=Redirect(port=80))),
    )
    async with site(loopback, *rules, backends={}) as served:

        async def location(path: str, host: str = "site.test") -> tuple[int, str | None]:
            answer = await served.get(path, host=host)
            return answer.status, answer.header("location")

        assert await location("/https/x?q=1") == (301, "https://site.test/https/x?q=1")
        assert await location("/https/x", "site.test:8080") == (301, "https://site.test:443/https/x")
        assert await location("/host") == (303, "http://other.test:8080/host")
        assert await location("/same/x?q=1") == (307, "http://site.test:8080/new?q=1")
        assert await location("/port") == (308, "https://site.test:9443/port")
        assert await location("/eighty") == (302, "http://site.test/eighty")
        assert await location("/eighty", "site.test:8080") == (302, "http://site.test:80/eighty")


PREFIXES = [
    ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
    ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
    ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
    ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
    ("/foo", "/foo", "/xyz", "/xyz"),
    ("/foo/", "/foo", "/xyz", "/xyz/"),
    ("/foo/bar", "/foo", "", "/bar"),
    ("/foo/", "/foo", "", "/"),
    ("/foo", "/foo", "", "/"),
    ("/foo/", "/foo", "/", "/"),
    ("/foo", "/foo", "/", "/"),
    ("/foo?a=/foo", "/foo", "/", "/?a=/foo"),
    ("/foo/foo/x?a=1", "/foo", "/", "/foo/x?a=1"),
    ("/bar", "/", "/xyz", "/xyz/bar"),
    ("/bar", "/", "/", "/bar"),
]


async def test_prefix_replacement_follows_the_table_of_the_api(loopback: str, backends: Backends) -> None:
    app, world = await backends.echo("app"), World(bind=loopback)
    row = listener("http", PORT)
    for index, (_, prefix, new, _) in enumerate(PREFIXES):
        edit = PathEdit(new, prefix=True)
        rewritten = under(prefix, filters=Filters(rewrite=Rewrite(path=edit)))
        redirected = under(prefix, filters=Filters(redirect=Redirect(path=edit, hostname="h.test", scheme="http")))
        world.serve(row, route(rewritten, name=f"w{index}"), f"w{index}.test")
        world.serve(row, route(redirected, name=f"r{index}"), f"r{index}.test")
    async with site(loopback, backends={"app": app.address}, world=world) as served:
        for index, (path, _, _, expected) in enumerate(PREFIXES):
            assert (await served.get(path, host=f"w{index}.test")).echo.path == expected
            assert (await served.get(path, host=f"r{index}.test")).header("location") == f"http://h.test{expected}"


async def test_whole_paths_and_hosts_are_rewritten(loopback: str, backends: Backends) -> None:
    app = await backends.echo("app")
    rules = (
        under("/all", filters=Filters(rewrite=Rewrite(hostname="inner.test", path=PathEdit("/new\\1")))),
        under("/host", filters=Filters(request=HeaderEdit(set=(("Host", "set.test"),)))),
    )
    async with site(loopback, *rules, backends={"app": app.address}) as served:
        echo = (await served.get("/all/of/it?q=1")).echo
        assert (echo.host, echo.path) == ("inner.test", "/new\\1?q=1")
        assert (await served.get("/host")).echo.host == "set.test"


async def test_header_edits_are_literal_and_the_backends_own_come_last(loopback: str, backends: Backends) -> None:
    app = await backends.echo("app")
    request = HeaderEdit(
        set=(("X-Set", "100%"), ("X-Both", "rule"), ("X-Empty", "")), add=(("X-Add", "more"),), remove=("X-Gone",)
    )
    own = HeaderEdit(set=(("x-both", "backend"),), add=(("X-Add", "own"),))
    rules = (
        under(
            "/",
            filters=Filters(request=request, response=HeaderEdit(set=(("X-Answer", "%REQ(X-Gone)%"),))),
            backends=(backend(request=own, response=HeaderEdit(add=(("X-Own", "yes"),))),),
        ),
    )
    async with site(loopback, *rules, backends={"app": app.address}) as served:
        answer = await served.get(headers={"X-Add": "first", "X-Gone": "x", "x-set": "old"})
        echo = answer.echo
        assert [echo.header(name) for name in ("x-set", "x-both", "x-add", "x-gone", "x-empty")] == [
            "100%", "backend", "first,more,own", None, "",
        ]  # fmt: skip
        assert answer.header("x-answer") == "%REQ(X-Gone)%"
        assert answer.header("x-own") == "yes"
        assert not [name for name, _ in answer.headers if name.startswith("x-envoy")]


async def test_shares_of_unusable_backends_answer_500(loopback: str, backends: Backends) -> None:
    app = await backends.echo("app")
    rules = (
        under("/half", 1, backends=(backend(weight=1), Backend(target=None, weight=1))),
        under("/none", 2, backends=(Backend(target=None),)),
        under("/zero", 3, backends=(backend(weight=0),)),
        under("/empty", 4, backends=()),
        under("/error", 5, error="no"),
        under("/lost", 6, backends=(backend("lost"),)),
    )
    async with site(loopback, *rules, backends={"app": app.address}) as served:
        statuses = Counter([(await served.get("/half")).status for _ in range(200)])
        assert set(statuses) == {200, 500}
        assert 60 <= statuses[500] <= 140
        for path in ("/none", "/zero", "/empty", "/error"):
            assert (await served.get(path)).status == 500
        assert (await served.get("/lost")).status == 503


async def test_filters_of_single_backends_split_the_traffic_by_weight(loopback: str, backends: Backends) -> None:
    one, two, copy = [await backends.echo(name) for name in ("one", "two", "copy")]
    rule = under(
        "/",
        backends=(
            backend("one", 5, rewrite=Rewrite(path=PathEdit("/rewritten", prefix=True))),
            backend("two", 3, mirrors=(Mirror(target=target("copy")),)),
            backend("one", 1, redirect=Redirect(hostname="away.test"), response=HeaderEdit(set=(("X-Why", "moved"),))),
            Backend(target=None, weight=1),
        ),
    )
    pods = {"one": one.address, "two": two.address, "copy": copy.address}
    async with site(loopback, rule, backends=pods) as served:
        seen: Counter[str] = Counter()
        for _ in range(1000):
            answer = await served.get("/x")
            seen[answer.pod or str(answer.status)] += 1
            if answer.pod == "one":
                assert answer.echo.path == "/rewritten/x"
            if answer.status == 302:
                assert answer.header("x-why") == "moved"
        for name, share in {"one": 500, "two": 300, "302": 100, "500": 100}.items():
            assert abs(seen[name] - share) < 70, seen
        await copy.wait_hits(seen["two"])
        assert copy.count() == seen["two"]


async def test_mirrors_copy_their_fraction_with_the_clients_host(loopback: str, backends: Backends) -> None:
    app, every, some = [await backends.echo(name) for name in ("app", "every", "some")]
    mirrors = (Mirror(target=target("every")), Mirror(target=target("some"), numerator=1, denominator=3))
    pods = {"app": app.address, "every": every.address, "some": some.address}
    async with site(loopback, under("/", filters=Filters(mirrors=mirrors)), backends=pods) as served:
        for _ in range(300):
            assert (await served.get("/x")).pod == "app"
        await every.wait_hits(300)
        assert {hit.host for hit in every.hits} == {"site.test"}
        assert 60 <= some.count() <= 140


async def test_timeouts_answer_504_and_retries_follow_their_codes(loopback: str, backends: Backends) -> None:
    app = await backends.echo("app")
    rules = (
        under("/whole", 1, timeout=100),
        under("/try", 2, backend_timeout=100),
        under("/open", 3, timeout=0, backend_timeout=0),
        under("/again", 4, retry=Retry(attempts=2, codes=(503,), backoff=1)),
        under("/reset", 5, retry=Retry(attempts=2)),
        under("/never", 6, retry=Retry(attempts=0)),
        under("/slow", 7, backend_timeout=100, retry=Retry(attempts=2, codes=(500,))),
    )
    async with site(loopback, *rules, backends={"app": app.address}) as served:
        assert (await served.get("/whole?delay=1")).status == 504
        assert (await served.get("/try?delay=1")).status == 504
        assert app.count("/try") == 1
        assert (await served.get("/open?delay=0.3")).status == 200
        assert (await served.get("/again?fail=2&id=a")).status == 200
        assert (await served.get("/again?fail=3&id=b")).status == 503
        assert (await served.get("/again?fail=1&id=c&code=500")).status == 500
        assert (await served.get("/reset?fail=2&id=d&code=reset")).status == 200
        assert (await served.get("/never?fail=1&id=e&code=reset")).status == 503
        assert (await served.get("/slow?delay=1")).status == 504
        assert app.count("/slow") == 3


async def test_failed_connections_are_retried_without_being_asked(loopback: str, backends: Backends) -> None:
    app, world = await backends.echo("app"), World(bind=loopback)
    world.reach(target(), app.address, (loopback, 9))
    rules = (under("/", 2), under("/asked", 1, retry=Retry(attempts=1, codes=(500,), backoff=1)))
    async with site(loopback, *rules, backends={}, world=world) as served:
        statuses = Counter([(await served.get()).status for _ in range(50)])
        assert statuses[200] >= 40
        assert {(await served.get("/asked")).status for _ in range(50)} == {200}


async def test_cors_preflights_end_at_the_gateway(loopback: str, backends: Backends) -> None:
    app = await backends.echo("app")
    cors = Cors(
        origins=("https://one.test", "https://*.wild.test"),
        methods=("GET", "PUT"),
        headers=("x-a", "x-b"),
        expose=("x-c",),
        credentials=True,
        max_age=60,
    )
    rules = (
        under("/some", 1, filters=Filters(cors=cors)),
        under("/any", 2, filters=Filters(cors=Cors(origins=("*",), methods=("*",), headers=("*",)))),
    )
    async with site(loopback, *rules, backends={"app": app.address}) as served:

        async def preflight(path: str, origin: str) -> Response:
            headers = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
            return await served.client.request("OPTIONS", path, host="site.test", headers=headers)

        for origin in ("https://one.test", "https://a.b.wild.test"):
            answer = await preflight("/some", origin)
            assert answer.status == 200
            assert answer.header("access-control-allow-origin") == origin
            assert answer.header("access-control-allow-methods") == "GET, PUT"
            assert answer.header("access-control-allow-headers") == "x-a, x-b"
            assert answer.header("access-control-allow-credentials") == "true"
            assert answer.header("access-control-max-age") == "60"
        for origin in ("http://one.test", "https://wild.test", "https://evil.test/.wild.test"):
            assert (await preflight("/some", origin)).header("access-control-allow-origin") is None
        assert (await preflight("/any", "https://x.test")).header("access-control-allow-methods") in {"*", "PUT"}
        assert app.hits == []
        simple = await served.get("/some", headers={"Origin": "https://one.test"})
        assert simple.header("access-control-allow-origin") == "https://one.test"
        assert simple.header("access-control-expose-headers") == "x-c"
        assert simple.pod == "app"


async def test_http_authorization_is_asked_per_route_and_fails_closed(loopback: str, backends: Backends) -> None:
    app, auth = await backends.echo("app"), await backends.echo("auth")

    def guard(path: str, **rest: object) -> Filters:
        service = ExternalAuth(target=target("auth"), grpc=False, path=path, **rest)  # type: ignore[arg-type]
        return Filters(external_auth=service)

    gone = [Filters(external_auth=ExternalAuth(target=target("gone"), grpc=grpc)) for grpc in (False, True)]
    rules = (
        under("/open", 1),
        under(
            "/yes",
            2,
            filters=guard("/check", request_headers=("x-token", "x-echo-set-header"), response_headers=("x-user",)),
        ),
        under("/no", 3, filters=guard("/status/401")),
        under("/gone", 4, filters=gone[0]),
        under("/lost", 5, filters=gone[1]),
    )
    async with site(loopback, *rules, backends={"app": app.address, "auth": auth.address}) as served:
        assert (await served.get("/open")).pod == "app"
        assert auth.hits == []
        headers = {"X-Token": "t", "X-Other": "o", "Cookie": "c", "X-Echo-Set-Header": "x-user: me"}
        answer = await served.get("/yes/x", headers=headers)
        assert (answer.status, answer.pod) == (200, "app")
        (asked,) = auth.hits
        assert asked.path == "/check/yes/x"
        assert [asked.header(name) for name in ("x-token", "x-other", "cookie")] == ["t", None, None]
        assert answer.echo.header("x-user") == "me"
        denied = await served.get("/no")
        assert (denied.status, denied.pod) == (401, "auth")
        assert (await served.get("/gone")).status == 403
        assert (await served.get("/lost")).status == 403
        assert {hit.path for hit in app.hits} == {"/open", "/yes/x"}


async def test_sessions_stick_to_an_endpoint(loopback: str, backends: Backends) -> None:
    pods = [await backends.echo(f"pod-{index}") for index in range(4)]
    world = World(bind=loopback)
    world.reach(target(), *[pod.address for pod in pods])
    rules = (
        under("/cookie", 1, session=SessionPersistence(name="stick", lifetime=60, path="/cookie")),
        under("/header", 2, session=SessionPersistence(name="x-stick", header=True)),
    )
    async with site(loopback, *rules, backends={}, world=world) as served:
        first = await served.get("/cookie")
        cookie = first.header("set-cookie") or ""
        assert cookie.startswith("stick=")
        assert "Max-Age=60" in cookie
        assert "Path=/cookie" in cookie
        kept = {(await served.get("/cookie", headers={"Cookie": cookie.split(";")[0]})).pod for _ in range(20)}
        assert kept == {first.pod}
        first = await served.get("/header")
        token = first.header("x-stick") or ""
        assert {(await served.get("/header", headers={"x-stick": token})).pod for _ in range(20)} == {first.pod}
        assert len({(await served.get("/cookie")).pod for _ in range(40)}) > 1


async def test_websockets_pass_on_every_route(loopback: str, backends: Backends) -> None:
    app = await backends.echo("app")
    async with (
        site(loopback, under("/", timeout=1000), backends={"app": app.address}) as served,
        websocket(served.address, "/chat", host="site.test") as socket,
    ):
        await socket.send("ping")
        assert "ping" in str(await socket.recv())


async def test_grpc_matches_take_only_grpc(loopback: str, backends: Backends) -> None:
    from meshgw.ir.backend import UpstreamProtocol

    app, calls = await backends.echo("app"), await backends.grpc("calls")
    world = World(bind=loopback)
    world.reach(target("calls"), calls.address, protocol=UpstreamProtocol.HTTP2)
    rules = (
        Rule(
            matches=(match(1, path=PathMatch(PathKind.EXACT, "/echo.Echo/Say"), grpc=True),),
            backends=(backend("calls"),),
        ),
        under("/", 2),
    )
    async with site(loopback, *rules, backends={"app": app.address}, world=world) as served:
        assert (await grpc_call(served.address, "/echo.Echo/Say", authority="site.test")).pod == "calls"
        assert (await served.get("/echo.Echo/Say")).pod == "app"


async def test_paths_are_normal_before_they_match(loopback: str, backends: Backends) -> None:
    app = await backends.echo("app")
    rules = (under("/open", 1), under("/closed", 2, error="refused"))
    async with site(loopback, *rules, backends={"app": app.address}) as served:
        for path in ("/open/../closed", "/open/%2e%2e/closed", "//closed", "/open/./../closed"):
            assert (await served.get(path)).status == 500, path
        assert (await served.get("/open/..%2fclosed")).status == 307


async def test_what_clients_claim_about_themselves_is_not_believed(loopback: str, backends: Backends) -> None:
    app = await backends.echo("app")
    async with site(loopback, under("/"), backends={"app": app.address}) as served:
        headers = {
            "X-Forwarded-Client-Cert": "By=x",
            "X-Envoy-Upstream-Rq-Timeout-Ms": "1",
            "X-Envoy-Original-Path": "/x",
            "X-Forwarded-Proto": "https",
        }
        echo = (await served.get("/?delay=0.05", headers=headers)).echo
        assert echo.header("x-forwarded-client-cert") is None
        assert {name for name in echo.headers if name.startswith("x-envoy")} == {"x-envoy-external-address"}
        assert echo.header("x-forwarded-proto") == "http"


@pytest.mark.parametrize("agent", ['x"}\n{"y', 'a\\"b'])
async def test_no_client_writes_a_log_line_of_its_own(loopback: str, backends: Backends, agent: str) -> None:
    app = await backends.echo("app")
    async with site(loopback, under("/"), backends={"app": app.address}) as served:
        await served.get("/secret?token=hidden", headers={"User-Agent": agent.replace("\n", "%0a")})
        await served.envoy.wait_log('"path":"/secret"', within=15)
        lines = [line for line in served.envoy.log().splitlines() if '"path"' in line]
        documents = [msgspec.json.decode(line) for line in lines]
        assert [document["agent"] for document in documents] == [agent.replace("\n", "%0a")]
        assert "hidden" not in served.envoy.log()
