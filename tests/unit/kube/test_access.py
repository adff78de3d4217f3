"""Configuration from files; how API servers take it is in tests/kube/test_client.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meshgw.kube.access import Entry, KubeSettings
from meshgw.kube.errors import AccessError

TOKEN = "a-token-of-nobody"


class Time:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def write(path: Path, *, user: dict[str, Any], cluster: dict[str, Any] | None = None, context: str = "c") -> Path:
    document = {
        "current-context": context,
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"} if cluster is None else cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "c", "context": {"cluster": "c", "user": "u"}},
            {"name": "other", "context": {"cluster": "c", "user": "nobody"}},
        ],
    }
    path.write_text(json.dumps(document))
    return path


def entry(
    path: Path | str, *, context: str = "", environ: dict[str, str] | None = None, now: Time | None = None
) -> Entry:
    settings = KubeSettings(kubeconfig=str(path), context=context)
    return Entry(settings, environ=environ or {}, now=now or Time())


async def test_token_file_is_read_again(tmp_path: Path) -> None:
    token, time = tmp_path / "token", Time()
    token.write_text(f"{TOKEN}\n")
    found = entry(write(tmp_path / "conf", user={"tokenFile": str(token)}), now=time)
    assert (await found.access()).authorization == f"Bearer {TOKEN}"
    token.write_text("second")
    time.seconds = 30
    assert (await found.access()).authorization == f"Bearer {TOKEN}"
    time.seconds = 61
    second = await found.access()
    assert second.authorization == "Bearer second"
    token.write_text("third")
    time.seconds = 63
    assert await found.access(refused=second) is second  # not for every refusal
    time.seconds = 67
    third = await found.access(refused=second)
    assert third.authorization == "Bearer third"
    assert await found.access(refused=second) is third  # somebody else was refused before
    token.unlink()
    time.seconds = 200
    assert await found.access() is third


async def test_kubeconfig_that_changes_is_read_again(tmp_path: Path) -> None:
    path, time = tmp_path / "conf", Time()
    found = entry(write(path, user={"token": TOKEN}), now=time)
    first = await found.access()
    write(path, user={"token": "another-one"}, cluster={"server": "http://127.0.0.1:2"})
    time.seconds = 61
    second = await found.access()
    assert (first.host, second.host) == ("http://127.0.0.1:1", "http://127.0.0.1:2")
    assert second.authorization == "Bearer another-one"
    path.write_text("{")
    time.seconds = 130
    assert await found.access() is second


async def test_context_and_password(tmp_path: Path) -> None:
    path = write(tmp_path / "conf", user={"username": "u", "password": "p"})
    assert (await entry(path).access()).authorization == "Basic dTpw"
    assert (await entry(path, context="other").access()).authorization == ""
    assert (await entry("", environ={"KUBECONFIG": str(path)}).access()).host == "http://127.0.0.1:1"


async def test_proxies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "conf", user={}, cluster={"server": "http://kube.example", "proxy-url": "http://p:1"})
    assert (await entry(path).access()).proxy == "http://p:1"
    write(path, user={}, cluster={"server": "http://kube.example"})
    monkeypatch.setenv("http_proxy", "http://q:2")
    assert (await entry(path).access()).proxy == "http://q:2"
    monkeypatch.setenv("no_proxy", "kube.example")
    assert (await entry(path).access()).proxy == ""


@pytest.mark.parametrize(
    "document",
    [
        "{",
        "[]",
        "null",
        json.dumps({"users": [{"name": "u", "user": {"token": TOKEN}}]}),
        json.dumps({"current-context": "c", "clusters": 7, "contexts": [], "users": [{"user": {"token": TOKEN}}]}),
        json.dumps({"current-context": "c", "clusters": [], "users": [], "contexts": [{"name": "c", "context": {}}]}),
        json.dumps(
            {
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": {}}],
                "users": [{"name": "u", "user": {"token": TOKEN, "auth-provider": {"config": {}, "name": None}}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            }
        ),
    ],
)
async def test_malformed_kubeconfig_is_refused_without_telling_secrets(tmp_path: Path, document: str) -> None:
    path = tmp_path / "conf"
    path.write_text(document)
    with pytest.raises(AccessError) as refused:
        await entry(path).access()
    assert TOKEN not in str(refused.value)
    assert refused.value.__cause__ is None
    assert str(refused.value)


async def test_nothing_configured_is_told(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match=r"there is no kubeconfig at .*missing"):
        await entry(tmp_path / "missing").access()
    pod = Entry(
        KubeSettings(account=tmp_path), environ={"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "1"}
    )
    assert pod.in_cluster
    with pytest.raises(AccessError, match="token file does not exist"):
        await pod.access()
