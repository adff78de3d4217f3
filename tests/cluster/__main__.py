"""`python -m tests.cluster up|down`: a cluster for a person to try things on, until it is told to go."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cluster.access import KubectlError
from tests.cluster.local import start_local_cluster
from tests.cluster.namespaces import ClusterError, locks
from tests.cluster.programs import ProgramsError, executable
from tests.cluster.tryout import furnish

_NAME = "cluster"
_KUBECONFIG = "admin.conf"
_ENDS_WITHIN = 30.0


def up(name: str = _NAME) -> int:
    """Start a cluster with istiod, meshgw and examples, and say how to use it; where it runs already, just say so."""
    if running := _running(name):
        _say(f"a cluster runs already, in {running}; `make cluster-down` removes it")
        sys.stdout.write(f"export KUBECONFIG={running / _KUBECONFIG}\n")
        return 0
    _say("starting a cluster (the first time its programs are built, which takes a while)")
    try:
        cluster = start_local_cluster(seeded=True, detached=True)
    except (ClusterError, ProgramsError) as error:
        _say(str(error))
        return 1
    try:
        furnish(cluster, _say)
    except (KubectlError, TimeoutError) as error:
        _say(str(error))
        cluster.namespaces.end()
        return 1
    except BaseException:
        cluster.namespaces.end()
        raise
    (locks() / f"{cluster.plot.number}.detached").write_text(json.dumps({"name": name, "folder": str(cluster.folder)}))
    _say(f"pods {cluster.plot.pods}, Services {cluster.plot.services} and load balancers {cluster.plot.load_balancers}")
    _say("can be reached from this machine; `make cluster-down` removes it all")
    if shutil.which("kubectl") is None:
        _say(f"here is a kubectl, as you have none: {executable('kubectl')}")
    sys.stdout.write(f"export KUBECONFIG={cluster.folder / _KUBECONFIG}\n")
    return 0


def down(name: str = "") -> int:
    """Remove every cluster that `up` started, or the one of this name."""
    marks = [mark for mark in sorted(locks().glob("*.detached")) if name in ("", json.loads(mark.read_text())["name"])]
    if not marks:
        _say("there is no cluster")
    for mark in marks:
        folder, keeper = Path(json.loads(mark.read_text())["folder"]), _keeper(mark)
        if keeper is not None:
            os.kill(keeper, signal.SIGTERM)
        else:  # it was killed: what else there was ended with it
            shutil.rmtree(folder, ignore_errors=True)
        deadline = time.monotonic() + _ENDS_WITHIN
        while folder.exists():
            if time.monotonic() > deadline:
                _say(f"{folder} does not go; see its log/keeper.log")
                return 1
            time.sleep(0.1)
        mark.unlink()
        _say(f"removed {folder}")
    return 0


def _running(name: str) -> Path | None:
    """Return the folder of the cluster that `up` started under this name, if it runs."""
    for mark in locks().glob("*.detached"):
        noted = json.loads(mark.read_text())
        if noted["name"] == name and _keeper(mark) is not None:
            return Path(noted["folder"])
    return None


def _keeper(mark: Path) -> int | None:
    """Return the keeper of the cluster that was marked, None if it has ended; its number may be another's since."""
    folder = json.loads(mark.read_text())["folder"]
    holder: dict[str, Any] = json.loads(mark.with_suffix(".lock").read_text() or "{}")
    if holder.get("folder") != folder or not _is_keeper(holder["keeper"], folder):
        return None
    pid: int = holder["keeper"]
    return pid


def _is_keeper(pid: int, folder: str) -> bool:
    try:
        return folder in Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return False


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say: the name tells clusters apart that several start."""
    match arguments:
        case ["up", *name] if len(name) < 2:
            return up(*name)
        case ["down", *name] if len(name) < 2:
            return down(*name)
    _say("usage: python -m tests.cluster up | down [NAME]")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
