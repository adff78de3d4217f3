"""Processes of ours and adopted ones."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec
import pytest

from meshgw.standalone.process import (
    ProcessState,
    adopt,
    boot_id,
    load_state,
    log_tail,
    save_state,
    spawn,
    start_time,
)


def state_of(pid: int, **changes: object) -> ProcessState:
    started = start_time(pid)
    assert started is not None
    state = ProcessState(pid=pid, started=started, boot=boot_id(), admin="unix:/a", fingerprint="f")
    return msgspec.structs.replace(state, **changes)


async def test_exit_status_and_output_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for detached in (False, True):
        process = spawn(["/bin/sh", "-c", "echo said; exit 3"], log, detached=detached)
        assert await process.wait() == 3
        assert await process.wait() == 3
    assert log_tail(log) == ["said", "said"]


async def test_signals_reach_it_and_are_no_error_afterwards(tmp_path: Path) -> None:
    process = spawn(["/bin/sleep", "60"], tmp_path / "log", detached=True)
    process.signal(signal.SIGTERM)
    assert await process.wait() == -signal.SIGTERM
    process.signal(signal.SIGKILL)


async def test_a_detached_program_that_does_not_exist_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        spawn([f"{tmp_path}/none"], tmp_path / "log", detached=True)


async def test_a_released_process_lives_on_and_can_be_adopted(tmp_path: Path) -> None:
    first = spawn(["/bin/sleep", "60"], tmp_path / "log", detached=True)
    state = state_of(first.pid)
    first.release()
    first.release()
    first.signal(signal.SIGKILL)
    second = adopt(state)
    assert second is not None
    assert second.pid == first.pid
    second.signal(signal.SIGTERM)
    await second.wait()
    assert adopt(state) is None


async def test_a_reused_id_is_not_adopted() -> None:
    state = state_of(os.getpid())
    assert adopt(msgspec.structs.replace(state, started=state.started + 1)) is None
    assert adopt(msgspec.structs.replace(state, boot="another")) is None
    mine = adopt(state)
    assert mine is not None
    mine.release()


def test_the_state_file_is_private_and_survives_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state = state_of(os.getpid())
    save_state(path, state)
    assert load_state(path) == state
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"garbage"])
def test_a_useless_state_file_is_no_state(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "state.json"
    if content is not None:
        path.write_bytes(content)
    assert load_state(path) is None


def test_a_gone_process_has_no_start_time() -> None:
    assert start_time(2**22 + 1) is None


def test_the_tail_is_of_this_life_only(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\n")
    offset = log.stat().st_size
    with log.open("a") as file:
        file.write("".join(f"new {number}\n" for number in range(50)))
    assert log_tail(log, after=offset, lines=2) == ["new 48", "new 49"]
    assert "old" not in log_tail(log, after=offset, lines=1000)
    log.write_text("fresh\n")
    assert log_tail(log, after=offset + 10_000) == ["fresh"]
    assert log_tail(tmp_path / "none") == []
