"""Why Envoy ended, in one line."""

from __future__ import annotations

import signal

import pytest

from meshgw.standalone.cause import explain_exit

STAMP = "[2026-11-21 12:40:09.558][285]"


@pytest.mark.parametrize(
    ("code", "lines", "text", "lasting"),
    [
        (
            1,
            [f"{STAMP}[critical][main] [s.cc:1] error `cannot bind '127.0.0.1:18123': Address already in use` init"],
            "127.0.0.1:18123 is in use; stop what listens there, or change the listener's port",
            True,
        ),
        (
            1,
            [f"{STAMP}[critical][main] [s.cc:1] error `cannot bind '127.0.0.1:80': Permission denied` initializing"],
            "127.0.0.1:80 needs a privilege to listen on; set --port-offset, or grant CAP_NET_BIND_SERVICE",
            True,
        ),
        (
            1,
            [f"{STAMP}[critical][main] [s.cc:1] error `no such field: 'x'` initializing config 'debug", "  f'", "more"],
            "Envoy rejected its bootstrap: no such field: 'x'; report this with the bootstrap",
            True,
        ),
        (-signal.SIGILL, [], "this CPU lacks instructions that Envoy needs; use another Envoy with --envoy", True),
        (
            1,
            ["/x/envoy: /lib/libc.so.6: version `GLIBC_2.31' not found (required by /x/envoy)"],
            "this Envoy needs a newer C library (GLIBC_2.31); use another Envoy with --envoy",
            True,
        ),
        (
            127,
            ["cannot run Envoy: /x/envoy: Exec format error"],
            "cannot run Envoy: /x/envoy: Exec format error; use another with --envoy",
            True,
        ),
        (-signal.SIGKILL, [], "Envoy was killed, by somebody or for lack of memory", False),
        (
            -signal.SIGSEGV,
            [f"{STAMP}[critical][backtrace] [b.h:1] Caught Segmentation fault", f"{STAMP}[critical][b] [b.h:1] #0: f"],
            "Envoy crashed (SIGSEGV): Caught Segmentation fault",
            False,
        ),
        (0, [], "Envoy ended with status 0", False),
        (None, [], "Envoy ended", False),
    ],
)
def test_each_ending_has_one_cause(code: int | None, lines: list[str], text: str, *, lasting: bool) -> None:
    cause = explain_exit(code, lines)
    assert (cause.text, cause.lasting) == (text, lasting)


def test_long_complaints_are_shortened() -> None:
    line = f"{STAMP}[critical][main] [s.cc:1] " + "x" * 1000
    assert len(explain_exit(1, [line]).text) < 600


def test_what_is_not_envoys_log_is_the_last_resort() -> None:
    assert explain_exit(1, ["starting", "bad thing: boom", ""]).text == "Envoy ended with status 1: bad thing: boom"
