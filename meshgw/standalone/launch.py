"""Become Envoy, bound to the life of the process that asked: run as a script, by path, in a bare interpreter.

The kernel kills the child when its parent dies, however the parent dies. Asking for that needs a call between fork and
exec; doing it here instead of in a `preexec_fn` keeps the controller's fork-free (vfork) process start.
"""

from __future__ import annotations

import os
import sys

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


def command(arguments: list[str]) -> list[str]:
    """Return the command line that runs `arguments` as a child that dies with this process (on Linux)."""
    if sys.platform != "linux":
        return arguments
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *arguments]


def main(parent: int, arguments: list[str]) -> None:
    """Tie this process to `parent` and replace it by `arguments`."""
    import ctypes  # noqa: PLC0415 - only the launched child needs it

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the kernel knew
        sys.exit(1)
    try:
        os.execv(arguments[0], arguments)  # noqa: S606 - replacing this process is the point
    except OSError as error:
        sys.stderr.write(f"cannot run Envoy: {arguments[0]}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
