"""Run commands, a JSON list of them, when standard input ends: with whoever holds it, however that one ends."""

from __future__ import annotations

import json
import subprocess
import sys


def main(commands: list[list[str]]) -> None:
    """Wait, then run each command whatever becomes of the others."""
    sys.stdin.buffer.read()
    for command in commands:
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            sys.stderr.write(f"{' '.join(command)}: {finished.stderr.strip()}\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
