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

from tests.cluster.istiod import Istiod
from tests.cluster.local import start_local_cluster
from tests.cluster.namespaces import ClusterError, locks
from tests.cluster.programs import ProgramsError

_ENDS_WITHIN = 30.0


def up() -> int:
    """Start a cluster with the Gateway API and istiod, and say how to use it."""
    _say("starting a cluster (the first time its programs are built, which takes a while)")
    try:
        cluster = start_local_cluster(seeded=True, detached=True)
    except (ClusterError, ProgramsError) as error:
        _say(str(error))
        return 1
    try:
        Istiod(cluster).install()
    except BaseException:
        cluster.namespaces.end()
        raise
    (locks() / f"{cluster.plot.number}.detached").touch()
    _say(f"pods {cluster.plot.pods}, Services {cluster.plot.services} and load balancers {cluster.plot.load_balancers}")
    _say("can be reached from this machine; `make cluster-down` removes it all")
    sys.stdout.write(f"export KUBECONFIG={cluster.kubeconfig}\n")
    return 0


def down(kubeconfig: str = "") -> int:
    """Remove every cluster that `up` started, or the one of this kubeconfig."""
    marks = sorted(locks().glob("*.detached"))
    if kubeconfig:
        marks = [mark for mark in marks if _holder(mark)["folder"] == str(Path(kubeconfig).parent)]
    if not marks:
        _say("there is no cluster")
    for mark in marks:
        holder = _holder(mark)
        folder = Path(holder["folder"])
        if _is_keeper(holder["keeper"], folder):
            os.kill(holder["keeper"], signal.SIGTERM)
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


def _holder(mark: Path) -> dict[str, Any]:
    """Return the folder and the keeper of the cluster that has the number of this mark."""
    found: dict[str, Any] = json.loads(mark.with_suffix(".lock").read_text())
    return found


def _is_keeper(pid: int, folder: Path) -> bool:
    try:
        return str(folder) in Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return False


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def main(arguments: Sequence[str]) -> int:
    """Do what the one argument says."""
    match arguments:
        case ["up"]:
            return up()
        case ["down", *kubeconfig] if len(kubeconfig) < 2:
            return down(*kubeconfig)
    _say("usage: python -m tests.cluster up | down [KUBECONFIG]")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
