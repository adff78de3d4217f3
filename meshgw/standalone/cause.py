"""Why an Envoy ended, from its exit status and last log lines: one cause and its remedy."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

import msgspec

_PREFIX = re.compile(r"^\[[^\]]*\]\[\d+\]\[(?P<level>\w+)\]\[\w+\] \[[^\]]*\] ")
_INITIALIZING = re.compile(r"error `(.*)` initializing config")
_SEVERE = ("critical", "error")
_LONGEST = 400


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """One line for the user; `lasting` causes will not go away by starting again."""

    text: str
    lasting: bool = False


def explain_exit(code: int | None, lines: Sequence[str]) -> Cause:
    """Return why Envoy ended: `code` is the exit status, negative for a signal, None when unknown (adopted)."""
    said = "\n".join(lines)
    if code == -signal.SIGILL:
        return Cause(text="this CPU lacks instructions that Envoy needs; use another Envoy with --envoy", lasting=True)
    if found := re.search(r"version `(GLIBC\S*)' not found", said):
        text = f"this Envoy needs a newer C library ({found[1]}); use another Envoy with --envoy"
        return Cause(text=text, lasting=True)
    if found := re.search(r"^cannot run Envoy: (.*)$", said, re.MULTILINE):
        return Cause(text=f"cannot run Envoy: {found[1]}; use another with --envoy", lasting=True)
    if found := re.search(r"cannot bind '?([^'\s:]+(?::\d+)?)'?: Address (?:already )?in use", said):
        return Cause(text=f"{found[1]} is in use; stop what listens there, or change the listener's port", lasting=True)
    if found := re.search(r"cannot bind '?([^'\s:]+(?::\d+)?)'?: Permission denied", said):
        text = f"{found[1]} needs a privilege to listen on; set --port-offset, or grant CAP_NET_BIND_SERVICE"
        return Cause(text=text, lasting=True)
    worst = _last_severe(lines)
    if code == 1 and worst:
        return Cause(text=f"Envoy rejected its bootstrap: {worst}; report this with the bootstrap", lasting=True)
    if code == -signal.SIGKILL:
        return Cause(text="Envoy was killed, by somebody or for lack of memory")
    if code is not None and code < 0:
        ending = f": {worst}" if worst else ""
        return Cause(text=f"Envoy crashed ({signal.Signals(-code).name}){ending}")
    last = worst or _last_words(lines)
    ending = f": {last}" if last else ""
    return Cause(text=f"Envoy ended{'' if code is None else f' with status {code}'}{ending}")


def _last_severe(lines: Sequence[str]) -> str:
    """Return the last error message without its timestamp and source position, shortened."""
    for line in reversed(lines):
        found = _PREFIX.match(line)
        if found and found["level"] in _SEVERE:
            message = line[found.end() :].strip()
            if initial := _INITIALIZING.search(message):
                message = initial[1]
            if message and not message.startswith("#"):  # stack frames
                return _shortened(message)
    return ""


def _last_words(lines: Sequence[str]) -> str:
    """Return the last line that is not from Envoy's own log: what a loader or a wrapper said."""
    return _shortened(next((line.strip() for line in reversed(lines) if line.strip() and not _PREFIX.match(line)), ""))


def _shortened(message: str) -> str:
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]}..."
