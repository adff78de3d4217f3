"""A person's way: `make cluster`, the README's walk, Helm in place of kustomize, `make cluster-down`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.access import Access
from tests.cluster.cluster import Cluster
from tests.cluster.local import LocalCluster
from tests.cluster.namespaces import ROOT
from tests.cluster.processes import wait_until
from tests.cluster.programs import executable
from tests.cluster.workloads import lines_of
from tests.rig.clients import request
from tests.rig.readme import helm, walk

PROGRAMS = ("helm",)
"""What is built before any test here runs."""

pytestmark = pytest.mark.timeout(400)

NAME = f"test-{os.getpid()}"
_PATIENCE = 10.0


class Person:
    """Somebody who works with a cluster by commands, in the repository's folder."""

    def __init__(self, said: subprocess.CompletedProcess[str]) -> None:
        self.said = said
        self.kubeconfig = Path(said.stdout.strip().removeprefix("export KUBECONFIG="))
        self.access = Access(self.kubeconfig)
        self.programs = os.pathsep.join(str(executable(name).parent) for name in ("kubectl", "helm"))

    def run(self, command: str) -> str:
        """Return what a command prints; raises AssertionError with its complaint."""
        environ = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "PATH": os.pathsep.join([self.programs, os.environ["PATH"]]),
            "HOME": str(self.kubeconfig.parent),
        }
        finished = subprocess.run(
            ["sh", "-c", command], cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=120
        )
        assert finished.returncode == 0, f"{command}: {finished.stdout}{finished.stderr}"
        return finished.stdout

    def try_request(self, line: str, *, within: float) -> None:
        """Run a command that sends a request until it says what the README says; a change takes a moment to arrive."""
        command, _, expected = line.partition("# ")
        deadline = time.monotonic() + within
        while (said := [f"StatusCode={code}" for code in lines_of(self.run(command), "StatusCode")]) != [expected]:
            assert time.monotonic() < deadline, f"{line}: {said}"


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What `make cluster` and `make cluster-down` run, for a cluster of this name."""
    command = [sys.executable, "-m", "tests.cluster", *arguments, NAME]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def person(cluster: Cluster) -> Iterator[Person]:
    """The run's cluster is there for its programs only: this one is the person's."""
    if not isinstance(cluster, LocalCluster):
        pytest.skip("`make cluster` starts a local cluster, whatever the tests use")
    said = make("up")
    assert said.returncode == 0, said.stderr
    yield Person(said)
    make("down")


async def test_person_gets_a_cluster_with_istiod_meshgw_and_examples(person: Person) -> None:
    """And hears what is going on."""
    heard = person.said.stderr.splitlines()
    steps = ("starting a cluster", "installing istiod", "installing meshgw", "loading manifests/examples/store")
    assert [step for step in steps if not any(line.startswith(step) for line in heard)] == []
    for namespace, deployment in (("istio-system", "istiod"), ("meshgw-system", "meshgw"), ("shop", "shop")):
        assert person.access.get("-n", namespace, "deployment", deployment)["status"]["readyReplicas"] == 1
    (line,) = (line for line in heard if line.endswith("is the store, for the host store.example.com"))
    address = line.removeprefix("http://").partition("/")[0]
    answer = await request((address, 80), "/hello", host="store.example.com", within=10.0)
    assert (answer.status, lines_of(answer.body.decode(), "URL")) == (200, ["/hello"])


def test_second_cluster_is_the_first(person: Person) -> None:
    again = make("up")
    assert (again.returncode, again.stdout) == (0, person.said.stdout)
    assert f"runs already, in {person.kubeconfig.parent}" in again.stderr


def requests() -> list[str]:
    """The commands of the walk that send a request."""
    return [line for line in walk() if " exec " in line]


def decided(person: Person) -> None:
    """All requests as they are once the policy is there, with no time to change."""
    for line in requests()[1:]:
        person.try_request(line, within=0)


def test_walk_of_the_readme(person: Person) -> None:
    """Each command as it stands, in order; then what the policy says holds, and it is the waypoint that says it."""
    for line in walk():
        if line in requests():
            person.try_request(line, within=_PATIENCE)
        else:
            person.run(line)
    decided(person)
    (pod,) = person.access.get("-n", "shop", "pods", "-l", "app=stranger")["items"]
    log = person.kubeconfig.parent / "mesh" / f"shop.{pod['metadata']['name']}.log"
    waypoint = "waypoint/shop/waypoint-meshgw-waypoint.shop.svc.cluster.local:15008"
    wait_until(lambda: f" by={waypoint} " in log.read_text(), what="the stranger's way is the waypoint", within=10)


def test_helm_installs_the_same(person: Person) -> None:
    """In place of what the walk installed; the waypoint goes on, with what the policy says."""
    person.run("kubectl delete -k manifests/overlays/kind --timeout=100s")
    for command in helm():
        person.run(command)
    person.run("kubectl -n meshgw-system rollout status deployment/meshgw --timeout=100s")
    person.run("kubectl -n shop rollout status deployment/waypoint-meshgw-waypoint --timeout=100s")
    for line in requests()[1:]:
        person.try_request(line, within=_PATIENCE)
    person.run("kubectl -n shop delete -f manifests/examples/walk/policy.yaml")
    allowed = requests()[-1].replace("403", "200")
    person.try_request(allowed, within=_PATIENCE)  # so the new installation decides, not what the old one left
    person.run("kubectl apply -f manifests/examples/walk/policy.yaml")
    person.try_request(requests()[-1], within=_PATIENCE)


def test_person_gets_rid_of_the_cluster(person: Person) -> None:
    folder = person.kubeconfig.parent
    ended = make("down")
    assert (ended.returncode, ended.stderr) == (0, f"removed {folder}\n")
    assert not folder.exists()
    with pytest.raises(OSError):
        person.access.request("GET", "/readyz", within=1)
    assert make("down").stderr == "there is no cluster\n"


def test_usage_is_told() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.cluster", "sideways"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert told.returncode == 2
    assert "up | down" in told.stderr
