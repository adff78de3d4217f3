"""The CRDs of the Gateway API and of Istio as etcd keeps them, so that an API server can start with them.

Installing them costs an API server ten seconds of computing. It is done once, and what etcd holds then is kept in
`~/.cache/meshgw/definitions`. Run as a program it stores such a file in an etcd: `FILE URL`.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from meshgw.standalone.envoy import cache_directory
from tests.cluster import crds
from tests.cluster.programs import PROGRAMS

GROUPS: Final = ("gateway.networking.k8s.io/v1", "networking.istio.io/v1", "security.istio.io/v1")
"""Some of what is served with these definitions."""

_READY: Final = 60.0
_PREFIXES: Final = (
    "/registry/apiextensions.k8s.io/customresourcedefinitions/",
    "/registry/validatingadmissionpolicies/",
    "/registry/validatingadmissionpolicybindings/",
)


def definitions() -> Path:
    """Return the file of key and value pairs, made with an API server of its own if need be."""
    root = cache_directory() / "definitions"
    path = root / f"{_fingerprint()}.json"
    if not path.exists():
        root.mkdir(parents=True, exist_ok=True)
        with (root / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                scratch = path.with_suffix(".new")
                scratch.write_text(json.dumps(_make()))
                scratch.rename(path)
    return path


def store(path: Path, url: str) -> None:
    """Put the pairs of a file into the etcd at `url`, once it is up; raises TimeoutError."""
    deadline = time.monotonic() + _READY
    while not is_up(url):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no etcd at {url} within {_READY} s")
        time.sleep(0.05)
    for key, value in json.loads(path.read_text()):
        call_etcd(url, "/v3/kv/put", {"key": key, "value": value})


def call_etcd(url: str, path: str, body: Mapping[str, Any]) -> Any:
    """Return etcd's answer to a request in JSON, keys and values in base 64."""
    request = urllib.request.Request(f"{url}{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def is_up(url: str) -> bool:
    """Whether the etcd at `url` answers as it should."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(json.load(answer)["health"] == "true")
    except OSError:
        return False


def _make() -> list[tuple[str, str]]:
    from tests.cluster.apiserver import run_apiserver  # which starts with what is made here

    with run_apiserver() as server:
        server.install_gateway_api()
        server.install_istio()
        pairs = []
        for prefix in _PREFIXES:
            end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
            span = {"key": _encode(prefix), "range_end": _encode(end)}
            found = call_etcd(server.etcd_url, "/v3/kv/range", span)
            pairs += [(pair["key"], pair["value"]) for pair in found["kvs"]]
        return pairs


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _fingerprint() -> str:
    digest = hashlib.sha256(PROGRAMS["control"].fingerprint().encode())
    for definition in (*crds.gateway_api(), *crds.istio()):
        digest.update(definition.text)
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    store(Path(sys.argv[1]), sys.argv[2])
