"""Fixtures that bring up real Kubernetes parts, for tests of any folder."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import existing, kind, kind_config, local, node_image
from tests.cluster.apiserver import ApiServer, run_apiserver
from tests.cluster.cluster import Cluster
from tests.cluster.images import ECHO, ENVOY, RECIPES, image
from tests.cluster.istiod import Istiod
from tests.cluster.programs import ProgramsError, build
from tests.cluster.seed import definitions

REQUIRED = "MESHGW_REQUIRE_CLUSTER"
"""Set where a machine must be able to run these tests: what would be skipped fails."""

PROVIDERS = ("local", "kind", "existing")

_FOLDERS = {Path(__file__).parent, Path(__file__).parent.parent / "kube"}
"""All tests in here belong to these tiers: they use programs that take minutes to build."""

_APISERVER_FIXTURES = {"apiserver", "start_apiserver"}
_CLUSTER_FIXTURES = {"cluster", "istiod", "start_cluster"}
_APISERVER_PROGRAMS = ("control",)
_PROGRAMS = {"local": local.PROGRAMS, "kind": ("control",), "existing": ("control",)}
_PATIENCE = 300
"""Seconds that a test may take with the start of what it uses, on a machine that is busy with other tests."""

_UNBUILT = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of a cluster."""
    group = parser.getgroup("cluster")
    group.addoption("--cluster", choices=PROVIDERS, default="local", help="who provides the cluster (default: local)")
    group.addoption(
        "--kind-config",
        choices=kind_config.shapes(),
        default="single",
        help="the shape in kind-configs that a cluster of kind has (default: single)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures they use; one worker has all that share the cluster."""
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        if used & _APISERVER_FIXTURES or item.path.parent in _FOLDERS:
            item.add_marker(pytest.mark.apiserver)
        if used & _CLUSTER_FIXTURES:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.xdist_group("cluster"))
        is_real = item.get_closest_marker("apiserver") or item.get_closest_marker("cluster")
        if is_real and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_PATIENCE))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the selected tests need, outside of any test's time limit and with the terminal at hand."""
    option = session.config.option
    needed: list[str] = []
    packed: list[str] = []
    if any(item.get_closest_marker("apiserver") for item in session.items):
        needed += _APISERVER_PROGRAMS
    if any(item.get_closest_marker("cluster") for item in session.items) and not _why_no_cluster(option.cluster):
        packed += RECIPES
        needed += [*_PROGRAMS[option.cluster], *(program for name in packed for program in RECIPES[name].programs)]
    modules = {getattr(item, "module", None) for item in session.items}
    needed += sorted({name for module in modules for name in getattr(module, "PROGRAMS", ())})
    if option.collectonly or not needed:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            for name in needed:
                build(name)
            for name in packed:
                image(name)
            definitions()
            if packed and option.cluster == "kind":
                kind.prepare()
        except (ProgramsError, node_image.NodeImageError, OSError) as error:
            sys.stderr.write(f"tests/cluster: {error}\n")
            session.config.stash[_UNBUILT] = str(error)


@pytest.fixture(scope="session")
def _programs(request: pytest.FixtureRequest) -> None:
    """The programs are there, or the test is skipped, or fails where it must not be skipped."""
    if cause := request.config.stash.get(_UNBUILT, None):
        _unavailable(cause)


@pytest.fixture(scope="session")
def apiserver(_programs: None) -> Iterator[ApiServer]:
    """An API server for this test process, with the CRDs of the Gateway API and Istio. Use namespaces of your own."""
    with run_apiserver(seeded=True) as server:
        yield server


@pytest.fixture
def start_apiserver(_programs: None) -> Iterator[Callable[..., ApiServer]]:
    """A function that starts an API server for this test alone: `run_apiserver`, ended with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(run_apiserver(*arguments, **options))


@pytest.fixture(scope="session")
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _programs: None
) -> Iterator[Cluster]:
    """The run's cluster, with the CRDs of the Gateway API and Istio, and images of Envoy and echo. Use own names."""
    chosen = request.config.option.cluster
    if cause := _why_no_cluster(chosen):
        _unavailable(cause)
    if os.environ.get("PYTEST_XDIST_WORKER"):  # the folder above is all workers'; two clusters would be a lost group
        (tmp_path_factory.getbasetemp().parent / "cluster").mkdir()
    if chosen == "local":
        with local.run_local_cluster(seeded=True) as started:
            yield started
        return
    shape = request.config.option.kind_config
    images = (ENVOY, ECHO)
    run = kind.run_kind_cluster(shape, images) if chosen == "kind" else existing.use_existing_cluster()
    with run as found:
        for name in images:
            found.provide(name)
        found.install_gateway_api()
        found.install_istio()
        yield found


@pytest.fixture
def local_cluster(cluster: Cluster) -> local.LocalCluster:
    """The run's cluster where it is a local one, whose node the test may look into; elsewhere the test is skipped."""
    if not isinstance(cluster, local.LocalCluster):
        pytest.skip("only a local cluster lets a test look into its node")
    return cluster


@pytest.fixture(scope="session")
def istiod(cluster: Cluster) -> Istiod:
    """The run's istiod, with its usual settings: who changes them (`configure`, `sign_with`, `stop`) puts them back."""
    installed = Istiod(cluster)
    installed.install()
    return installed


@pytest.fixture
def start_cluster(request: pytest.FixtureRequest, _programs: None) -> Iterator[Callable[..., local.LocalCluster]]:
    """A function that starts a local cluster for this test alone: `run_local_cluster`, ended with the test."""
    if request.config.option.cluster != "local":
        pytest.skip("only local clusters are started for one test alone")
    if cause := local.why_not():
        _unavailable(cause)
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(local.run_local_cluster(*arguments, **options))


def _why_no_cluster(provider: str) -> str | None:
    return {"local": local.why_not, "kind": kind.why_not, "existing": existing.why_not}[provider]()


def _unavailable(cause: str) -> None:
    if os.environ.get(REQUIRED):
        pytest.fail(cause)
    pytest.skip(cause)
