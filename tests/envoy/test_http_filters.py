"""What filters do to requests and answers: header changes, redirects, rewrites, mirrors and cross-origin rules."""

from __future__ import annotations

import re

import pytest

from tests.envoy.gateway import Document, gateway, https_listener, listener, path, route, site, to
from tests.rig.backends import Backends
from tests.rig.certs import CertificateAuthority
from tests.rig.clients import HttpClient, Response
from tests.rig.tls import ClientTls

ORIGIN = "https://app.test"


def rules(text: str) -> Document:
    """A route with these rules and no host name."""
    return route(text)


async def test_request_headers_are_set_added_and_removed(loopback: str, backends: Backends) -> None:
    rule = rules("""
    - filters:
      - type: RequestHeaderModifier
        requestHeaderModifier:
          set: [{name: X-Set, value: new}, {name: x-fresh, value: "1"}]
          add: [{name: X-Add, value: more}, {name: x-added, value: "2"}]
          remove: [X-Gone]
      backendRefs: [{name: a, port: 80}]
    """)
    sent = {"x-set": "old", "x-add": "one", "x-gone": "here", "x-kept": "kept"}
    async with site(loopback, backends, gateway(), rule) as served:
        echo = (await served.get(headers=sent)).echo
    assert echo.header("x-set") == "new"
    assert echo.header("x-fresh") == "1"
    assert echo.header("x-add") == "one,more"
    assert echo.header("x-added") == "2"
    assert echo.header("x-gone") is None
    assert echo.header("x-kept") == "kept"


async def test_response_headers_are_set_added_and_removed(loopback: str, backends: Backends) -> None:
    rule = rules("""
    - filters:
      - type: ResponseHeaderModifier
        responseHeaderModifier:
          set: [{name: X-Set, value: new}]
          add: [{name: X-Add, value: more}]
          remove: [x-gone]
      backendRefs: [{name: a, port: 80}]
    """)
    async with site(loopback, backends, gateway(), rule) as served:
        answer = await served.get(headers={"x-echo-set-header": "x-set:old,x-add:one,x-gone:here,x-kept:kept"})
    assert answer.header("x-set") == "new"
    assert answer.header_values("x-add") in (["one", "more"], ["one,more"])
    assert answer.header("x-gone") is None
    assert answer.header("x-kept") == "kept"


async def test_header_values_are_literal(loopback: str, backends: Backends) -> None:
    values = {"x-percent": "100%", "x-command": "%DOWNSTREAM_REMOTE_ADDRESS%", "x-double": "a%%b", "x-comma": "a, b;c"}
    edit = {"set": [{"name": name, "value": value} for name, value in values.items()]}
    filters = [
        {"type": "RequestHeaderModifier", "requestHeaderModifier": edit},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": edit},
    ]
    async with site(loopback, backends, gateway(), route([to("a", filters=filters)])) as served:
        answer = await served.get()
    assert {name: answer.echo.header(name) for name in values} == values
    assert {name: answer.header(name) for name in values} == values


async def test_a_backends_header_changes_are_for_its_share_and_come_last(loopback: str, backends: Backends) -> None:
    rule = rules("""
    - filters:
      - type: RequestHeaderModifier
        requestHeaderModifier: {set: [{name: x-by, value: rule}, {name: x-rule, value: "yes"}]}
      - type: ResponseHeaderModifier
        responseHeaderModifier: {add: [{name: x-answer, value: rule}]}
      backendRefs:
      - name: a
        port: 80
        filters:
        - type: RequestHeaderModifier
          requestHeaderModifier: {set: [{name: x-by, value: backend}]}
        - type: ResponseHeaderModifier
          responseHeaderModifier: {set: [{name: x-answer, value: backend}]}
      - {name: b, port: 80}
    """)
    async with site(loopback, backends, gateway(), rule) as served:
        answers = [await served.get() for _ in range(40)]
    seen = {(a.pod, a.echo.header("x-by"), a.echo.header("x-rule"), a.header("x-answer")) for a in answers}
    assert seen == {("a", "backend", "yes", "backend"), ("b", "rule", "yes", "rule")}


async def test_the_host_header_can_be_set(loopback: str, backends: Backends) -> None:
    edit = {"set": [{"name": "Host", "value": "inner.test"}]}
    filters = [{"type": "RequestHeaderModifier", "requestHeaderModifier": edit}]
    async with site(loopback, backends, gateway(), route([to("a", filters=filters)])) as served:
        assert (await served.get()).echo.host == "inner.test"


def redirect(**fields: object) -> list[Document]:
    return [{"type": "RequestRedirect", "requestRedirect": fields}]


def replace(kind: str, value: str) -> Document:
    return {"type": kind, "replaceFullPath" if kind == "ReplaceFullPath" else "replacePrefixMatch": value}


def without_default_port(url: str) -> str:
    """The same URL: the port that its scheme implies may be named or not."""
    return re.sub(r"^(https(?=.*:443/)|http(?=.*:80/))(://[^/:]*):\d+/", r"\1\2/", url)


@pytest.mark.parametrize(
    ("fields", "location"),
    [
        ({"hostname": "new.test"}, "http://new.test:10080/old/x?q=1"),
        ({"scheme": "https"}, "https://site.test/old/x?q=1"),
        ({"scheme": "http"}, "http://site.test/old/x?q=1"),
        ({"port": 8080}, "http://site.test:8080/old/x?q=1"),
        ({"scheme": "https", "port": 443}, "https://site.test/old/x?q=1"),
        ({"scheme": "https", "port": 8443}, "https://site.test:8443/old/x?q=1"),
        ({"hostname": "new.test", "scheme": "https"}, "https://new.test/old/x?q=1"),
        ({"path": replace("ReplaceFullPath", "/new")}, "http://site.test:10080/new?q=1"),
        ({"path": replace("ReplacePrefixMatch", "/new")}, "http://site.test:10080/new/x?q=1"),
        ({"path": replace("ReplacePrefixMatch", "/new/")}, "http://site.test:10080/new/x?q=1"),
        ({"path": replace("ReplacePrefixMatch", "/")}, "http://site.test:10080/x?q=1"),
    ],
)
async def test_redirects_change_what_they_name_alone(
    loopback: str, backends: Backends, fields: Document, location: str
) -> None:
    rule = {"matches": [path("PathPrefix", "/old")], "filters": redirect(**fields)}
    async with site(loopback, backends, gateway(), route([rule]), names=()) as served:
        answer = await served.get("/old/x?q=1", host="site.test:10080")
    assert (answer.status, without_default_port(answer.header("location") or "")) == (302, location)


async def test_replacing_a_prefix_by_the_root_leaves_no_empty_path(loopback: str, backends: Backends) -> None:
    rule = {
        "matches": [path("PathPrefix", "/old")],
        "filters": redirect(hostname="new.test", scheme="http", path=replace("ReplacePrefixMatch", "/")),
    }
    async with site(loopback, backends, gateway(), route([rule]), names=()) as served:
        wanted = {"/old": "http://new.test/", "/old/": "http://new.test/", "/old/x": "http://new.test/x"}
        assert {asked: (await served.get(asked)).header("location") for asked in wanted} == wanted


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_has_the_status_it_asks_for(loopback: str, backends: Backends, status: int) -> None:
    rule = {"filters": redirect(hostname="new.test", scheme="https", statusCode=status)}
    async with site(loopback, backends, gateway(), route([rule]), names=()) as served:
        answer = await served.request("POST", "/x")
    assert (answer.status, answer.header("location")) == (status, "https://new.test/x")


async def test_an_https_listener_redirects_to_its_own_port(
    loopback: str, backends: Backends, ca: CertificateAuthority
) -> None:
    serves = gateway(https_listener(port=8443))
    rule = {"filters": redirect(hostname="new.test")}
    secret = ca.issue("site.test").secret("cert")
    async with site(loopback, backends, serves, route([rule]), secret, names=()) as served:
        answer = await served.fresh("/x", host="site.test", port=8443, tls=ClientTls(ca=ca.root))
    assert answer.header("location") == "https://new.test:8443/x"


async def test_a_redirect_of_one_backend_takes_its_share(loopback: str, backends: Backends) -> None:
    rule = rules("""
    - backendRefs:
      - name: a
        port: 80
        filters:
        - {type: RequestRedirect, requestRedirect: {scheme: https, hostname: new.test}}
      - {name: b, port: 80, weight: 3}
    """)
    async with site(loopback, backends, gateway(), rule) as served:
        answers = [await served.get() for _ in range(200)]
    moved = [answer for answer in answers if answer.status == 302]
    assert {answer.header("location") for answer in moved} == {"https://new.test/"}
    assert {answer.pod for answer in answers if answer.status == 200} == {"b"}
    assert 20 <= len(moved) <= 90


def rewrite(**fields: object) -> list[Document]:
    return [{"type": "URLRewrite", "urlRewrite": fields}]


@pytest.mark.parametrize(
    ("prefix", "new", "asked", "seen"),
    [
        ("/old", "/new", "/old", "/new"),
        ("/old", "/new", "/old/", "/new/"),
        ("/old", "/new", "/old/x?q=1", "/new/x?q=1"),
        ("/old", "/new/", "/old/x", "/new/x"),
        ("/old/", "/new", "/old/x", "/new/x"),
        ("/old", "/", "/old/x", "/x"),
        ("/old", "/", "/old", "/"),
        ("/old", "", "/old/x", "/x"),
        ("/", "/new", "/x", "/new/x"),
        ("/old", "/", "/old?q=1", "/?q=1"),
    ],
)
async def test_a_prefix_is_replaced_by_segments(  # noqa: PLR0917 - one column of the table each
    loopback: str, backends: Backends, prefix: str, new: str, asked: str, seen: str
) -> None:
    rule = to("a", path("PathPrefix", prefix), filters=rewrite(path=replace("ReplacePrefixMatch", new)))
    async with site(loopback, backends, gateway(), route([rule]), names="a") as served:
        assert (await served.get(asked)).echo.path == seen


async def test_a_whole_path_is_replaced_and_the_query_kept(loopback: str, backends: Backends) -> None:
    rule = to("a", filters=rewrite(path=replace("ReplaceFullPath", "/one/two")))
    async with site(loopback, backends, gateway(), route([rule]), names="a") as served:
        assert (await served.get("/any/thing?q=1")).echo.path == "/one/two?q=1"
        assert (await served.get("/")).echo.path == "/one/two"


async def test_host_and_path_are_rewritten_together(loopback: str, backends: Backends) -> None:
    change = rewrite(hostname="inner.test", path=replace("ReplacePrefixMatch", "/v1"))
    rule = to("a", path("PathPrefix", "/api"), filters=change)
    async with site(loopback, backends, gateway(), route([rule]), names="a") as served:
        echo = (await served.get("/api/x")).echo
    assert (echo.host, echo.path) == ("inner.test", "/v1/x")


async def test_a_rewrite_of_one_backend_is_for_its_share(loopback: str, backends: Backends) -> None:
    own = {"name": "a", "port": 80, "filters": rewrite(hostname="a.inner.test")}
    rule = {"backendRefs": [own, {"name": "b", "port": 80}]}
    async with site(loopback, backends, gateway(), route([rule])) as served:
        answers = [await served.get() for _ in range(60)]
    assert {(answer.pod, answer.echo.host) for answer in answers} == {("a", "a.inner.test"), ("b", "site.test")}


def mirror(name: str, **fields: object) -> Document:
    return {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": name, "port": 80}, **fields}}


async def test_every_mirror_gets_a_copy_and_nobody_waits_for_it(loopback: str, backends: Backends) -> None:
    rule = to("a", filters=[mirror("b"), mirror("c")])
    async with site(loopback, backends, gateway(), route([rule]), names="abc") as served:
        answer = await served.request("POST", "/x?delay=0", body=b"text", headers={"x-k": "v"})
        assert answer.pod == "a"
        for name in "bc":
            (copy,) = await served.backends[name].wait_hits()
            assert (copy.method, copy.path, copy.body, copy.header("x-k")) == ("POST", "/x?delay=0", "text", "v")
            assert copy.host == "site.test"


async def test_a_mirror_takes_its_percentage(loopback: str, backends: Backends) -> None:
    rule = to("a", filters=[mirror("b", percent=20), mirror("c", percent=0)])
    async with site(loopback, backends, gateway(), route([rule]), names="abc") as served:
        assert set(await served.pods(400)) == {"a"}
        await served.backends["b"].wait_hits(1)
        assert 40 <= served.backends["b"].count() <= 130
        assert served.backends["c"].count() == 0


async def test_a_mirror_takes_its_fraction(loopback: str, backends: Backends) -> None:
    rule = to("a", filters=[mirror("b", fraction={"numerator": 1, "denominator": 2})])
    async with site(loopback, backends, gateway(), route([rule])) as served:
        assert set(await served.pods(200)) == {"a"}
        assert 60 <= served.backends["b"].count() <= 140


async def test_a_mirror_of_one_backend_copies_its_share(loopback: str, backends: Backends) -> None:
    own = {"name": "a", "port": 80, "filters": [mirror("c")]}
    rule = {"backendRefs": [own, {"name": "b", "port": 80}]}
    async with site(loopback, backends, gateway(), route([rule]), names="abc") as served:
        pods = await served.pods(60)
        await served.backends["c"].wait_hits(pods.count("a"))
        assert served.backends["c"].count() == served.backends["a"].count() < 60


async def test_a_dead_mirror_harms_nobody(loopback: str, backends: Backends) -> None:
    rule = to("a", filters=[mirror("b"), mirror("missing")])
    async with site(loopback, backends, gateway(), route([rule])) as served:
        await served.backends["b"].stop()
        assert await served.pods(5) == ["a"] * 5
        assert [finding.code for finding in served.findings("MG2")] == ["MG2001"]


def cors(**fields: object) -> list[Document]:
    return [{"type": "CORS", "cors": fields}]


def preflight(origin: str, method: str = "PUT", headers: str = "") -> dict[str, str]:
    asked = {"origin": origin, "access-control-request-method": method}
    return {**asked, "access-control-request-headers": headers} if headers else asked


def grants(answer: Response) -> dict[str, str]:
    """The cross-origin part of an answer."""
    start = "access-control-"
    return {name.removeprefix(start): value for name, value in answer.headers if name.startswith(start)}


async def test_an_allowed_preflight_is_answered_by_the_gateway(loopback: str, backends: Backends) -> None:
    filters = cors(
        allowOrigins=[ORIGIN], allowMethods=["GET", "PUT"], allowHeaders=["x-one", "x-two"], maxAge=600,
        exposeHeaders=["x-seen"], allowCredentials=True,
    )  # fmt: skip
    async with site(loopback, backends, gateway(), route([to("a", filters=filters)])) as served:
        answer = await served.request("OPTIONS", "/", headers=preflight(ORIGIN, headers="x-one"))
        assert answer.status in {200, 204}
        seen = grants(answer)
        assert seen["allow-origin"] == ORIGIN
        assert {word.strip() for word in seen["allow-methods"].split(",")} == {"GET", "PUT"}
        assert {word.strip() for word in seen["allow-headers"].split(",")} == {"x-one", "x-two"}
        assert (seen["max-age"], seen["allow-credentials"]) == ("600", "true")
        assert served.backends["a"].count() == 0


async def test_a_preflight_of_another_origin_gets_no_grant(loopback: str, backends: Backends) -> None:
    filters = cors(allowOrigins=[ORIGIN], allowMethods=["GET"])
    async with site(loopback, backends, gateway(), route([to("a", filters=filters)])) as served:
        answer = await served.request("OPTIONS", "/", headers=preflight("https://evil.test", "GET"))
        assert "allow-origin" not in grants(answer)
        assert served.backends["a"].count() == 0


async def test_a_simple_request_says_what_its_origin_may_read(loopback: str, backends: Backends) -> None:
    filters = cors(allowOrigins=[ORIGIN], exposeHeaders=["x-seen"], allowCredentials=True)
    async with site(loopback, backends, gateway(), route([to("a", filters=filters)])) as served:
        allowed = await served.get(headers={"origin": ORIGIN})
        assert allowed.pod == "a"
        assert grants(allowed) == {
            "allow-origin": ORIGIN, "expose-headers": "x-seen", "allow-credentials": "true"}  # fmt: skip
        other = await served.get(headers={"origin": "https://evil.test"})
        assert (other.pod, grants(other)) == ("a", {})


@pytest.mark.parametrize(
    ("allowed", "origin", "granted"),
    [
        ("*", "https://any.test", "granted"),
        ("https://*.test", "https://x.test", "granted"),
        ("https://*.test", "https://x.y.test", "granted"),
        ("https://*.test", "http://x.test", "refused"),
        ("https://*.test", "https://x.test.evil", "refused"),
        ("https://*.test", "https://xtest", "refused"),
        ("https://app.test", "https://app.test:8443", "refused"),
        ("https://app.test:8443", "https://app.test:8443", "granted"),
    ],
)
async def test_origins_match_whole_or_by_wildcard(
    loopback: str, backends: Backends, allowed: str, origin: str, granted: str
) -> None:
    async with site(loopback, backends, gateway(), route([to("a", filters=cors(allowOrigins=[allowed]))])) as served:
        answer = await served.get(headers={"origin": origin})
        assert answer.pod == "a"
        assert ("allow-origin" in grants(answer)) is (granted == "granted")


async def test_stars_allow_all_methods_and_headers(loopback: str, backends: Backends) -> None:
    filters = cors(allowOrigins=["*"], allowMethods=["*"], allowHeaders=["*"])
    async with site(loopback, backends, gateway(), route([to("a", filters=filters)])) as served:
        answer = await served.request("OPTIONS", "/", headers=preflight(ORIGIN, "DELETE", "x-any"))
        seen = grants(answer)
        assert seen["allow-origin"] in {"*", ORIGIN}
        assert seen["allow-methods"] in {"*", "DELETE"}
        assert seen["allow-headers"] in {"*", "x-any"}


async def test_other_rules_are_untouched_by_a_filter(loopback: str, backends: Backends) -> None:
    both = [to("a", path("PathPrefix", "/a"), filters=cors(allowOrigins=["*"])), to("b")]
    async with site(loopback, backends, gateway(listener(), listener("two", port=8080)), route(both)) as served:
        answer = await served.request("OPTIONS", "/b", headers=preflight(ORIGIN))
        assert (answer.pod, grants(answer)) == ("b", {})
        async with HttpClient(served.target(8080)) as other:
            assert (await other.get("/a", headers={"origin": ORIGIN})).header("access-control-allow-origin")
