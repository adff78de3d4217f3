"""The runtime directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshgw.standalone.lock import InUseError
from meshgw.standalone.runtime import RuntimeDirectory, default_directory


def test_acquiring_makes_it_private_and_exclusive(tmp_path: Path) -> None:
    directory = RuntimeDirectory(tmp_path / "run")
    with directory.acquire():
        assert directory.path.stat().st_mode & 0o777 == 0o700
        with pytest.raises(InUseError):
            RuntimeDirectory(tmp_path / "run").acquire()


def test_a_directory_that_cannot_be_made_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InUseError, match="choose a writable --runtime-dir"):
        RuntimeDirectory(tmp_path / "file" / "run").acquire()


def test_proxies_have_stable_short_distinct_directories() -> None:
    directory = RuntimeDirectory(Path("/run/m"))
    assert directory.proxy("default", "web").path == Path("/run/m/default.web")
    long = [directory.proxy("n" * 60, "g" * 60 + end).path for end in "ab"]
    assert long[0] != long[1]
    assert all(len(path.name) <= 40 for path in long)
    assert directory.proxy("n" * 60, "g" * 60 + "a").path == long[0]


def test_paths_too_long_for_a_socket_are_refused_early() -> None:
    with pytest.raises(InUseError, match="too long for a unix socket"):
        RuntimeDirectory(Path("/" + "x" * 100))


def test_addresses_are_unix_sockets() -> None:
    directory = RuntimeDirectory(Path("/run/m"))
    assert directory.xds == "unix:/run/m/xds.sock"
    assert directory.proxy("a", "b").admin == "unix:/run/m/a.b/admin.sock"


def test_proxies_with_a_state_are_known(tmp_path: Path) -> None:
    directory = RuntimeDirectory(tmp_path)
    for name in ("one", "two", "three"):
        directory.proxy("d", name).create()
    directory.proxy("d", "two").state.write_text("{}")
    assert [proxy.path.name for proxy in directory.known_proxies()] == ["d.two"]


def test_the_default_follows_xdg(tmp_path: Path) -> None:
    assert default_directory({"XDG_RUNTIME_DIR": "/run/user/5"}) == Path("/run/user/5/meshgw")
    assert f"meshgw-{os.geteuid()}" in str(default_directory({}))
