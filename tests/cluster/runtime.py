"""runc for machines that lack CAP_SYS_RESOURCE: what a container asks for beyond that is left out.

Run as a script by Docker, in a bare interpreter: the path of runc, then runc's arguments.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

_LACKING = "CAP_SYS_RESOURCE"


def limit(process: dict[str, Any]) -> None:
    """Take the capability from an OCI process, and what it would be needed for."""
    for names in (process.get("capabilities") or {}).values():
        if _LACKING in names:
            names.remove(_LACKING)
    if process.get("oomScoreAdj", 0) < 0:
        process["oomScoreAdj"] = 0


def limit_files(arguments: list[str]) -> None:
    """Change the files that runc is about to read."""
    if "create" in arguments or "run" in arguments:
        path = Path(_option(arguments, "--bundle", "-b") or ".") / "config.json"
        document = json.loads(path.read_text())
        limit(document["process"])
        path.write_text(json.dumps(document))
    elif "exec" in arguments and (named := _option(arguments, "--process", "-p")):
        process = json.loads(Path(named).read_text())
        limit(process)
        Path(named).write_text(json.dumps(process))


def _option(arguments: list[str], *names: str) -> str:
    for at, argument in enumerate(arguments[:-1]):
        if argument in names:
            return arguments[at + 1]
    return ""


if __name__ == "__main__":
    limit_files(sys.argv[2:])
    os.execv(sys.argv[1], sys.argv[1:])
