"""Locks on directories and addresses."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from meshgw.standalone import lock
from meshgw.standalone.lock import InUseError, claim_address, lock_directory, make_private, probe_address
from tests.rig.addresses import free_port, next_loopback


def test_a_second_instance_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    message = rf"\(pid {os.getpid()}\) runs in {tmp_path}.*--runtime-dir"
    with lock_directory(tmp_path), pytest.raises(InUseError, match=message):
        lock_directory(tmp_path)
    with lock_directory(tmp_path):
        pass


def test_the_lock_ends_with_its_process_however_it_ends(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from meshgw.standalone.lock import lock_directory\n"
        "held = lock_directory(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InUseError, match=f"pid {other.pid}"):
            lock_directory(tmp_path)
        other.kill()
        other.wait()
    with lock_directory(tmp_path):
        pass


def test_an_address_is_claimed_once_per_transport(tmp_path: Path) -> None:
    host = next_loopback()
    with claim_address(host, 8080, directory=tmp_path), claim_address(host, 8080, transport="udp", directory=tmp_path):
        with pytest.raises(InUseError, match=rf"another meshgw .* serves {host}:8080/tcp"):
            claim_address(host, 8080, directory=tmp_path)
        with claim_address(host, 8081, directory=tmp_path):
            pass


@pytest.mark.parametrize("reuse_port", [False, True])
def test_an_address_somebody_listens_on_is_refused_even_if_shared(tmp_path: Path, *, reuse_port: bool) -> None:
    host = next_loopback()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
        other.bind((host, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InUseError, match=f"{host}:{port}/tcp is in use; stop what listens there"):
            claim_address(host, port, directory=tmp_path)
        with claim_address(host, port, directory=tmp_path, probe=False):
            pass
    with claim_address(host, port, directory=tmp_path):
        pass


def test_udp_addresses_are_probed() -> None:
    host = next_loopback()
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind((host, 0))
        cause = probe_address(host, other.getsockname()[1], transport="udp")
    assert cause is not None
    assert "/udp is in use" in cause


def test_a_lock_whose_holder_is_unreadable_names_nobody(tmp_path: Path) -> None:
    held = lock_directory(tmp_path)
    held.path.write_text("")
    assert held.holder() == "another process"
    held.path.unlink()
    assert held.holder() == "another process"
    held.release()


def test_foreign_addresses_are_named_as_such() -> None:
    cause = probe_address("192.0.2.1", free_port())
    assert cause is not None
    assert "no address of this machine" in cause


def test_privileged_ports_point_at_the_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_socket: object, _address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(lock.socket.socket, "bind", refuse)
    cause = probe_address("127.0.0.1", 80)
    assert cause is not None
    assert "--port-offset" in cause


def test_private_directories_are_private_all_the_way(tmp_path: Path) -> None:
    make_private(tmp_path / "a" / "b")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    (tmp_path / "a").chmod(0o755)
    with pytest.raises(InUseError, match="not a private directory"):
        make_private(tmp_path / "a")


def test_a_link_is_no_private_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(InUseError):
        make_private(tmp_path / "link")


def test_address_locks_live_in_a_private_folder_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = lock.lock_folder()
    assert folder.parent.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
