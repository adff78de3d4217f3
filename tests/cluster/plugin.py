"""Fixtures that bring up real Kubernetes parts, for tests of any folder."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.apiserver import ApiServer, run_apiserver
from tests.cluster.programs import ProgramsError, build

REQUIRED = "MESHGW_REQUIRE_CLUSTER"
"""Set where a machine must be able to run these tests: what would be skipped fails."""

_APISERVER_FIXTURES = {"apiserver", "start_apiserver"}
_APISERVER_PROGRAMS = ("control",)
_UNBUILT = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures they use."""
    for item in items:
        if _APISERVER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.apiserver)


@pytest.hookimpl
def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the selected tests need, outside of any test's time limit and with the terminal at hand."""
    needed: list[str] = []
    if any(item.get_closest_marker("apiserver") for item in session.items):
        needed += _APISERVER_PROGRAMS
    if session.config.option.collectonly or not needed:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            for name in needed:
                build(name)
        except ProgramsError as error:
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
    with run_apiserver() as server:
        server.install_gateway_api()
        server.install_istio()
        yield server


@pytest.fixture
def start_apiserver(_programs: None) -> Iterator[Callable[..., ApiServer]]:
    """A function that starts an API server for this test alone, with extra arguments and without any CRDs."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(run_apiserver(*arguments))


def _unavailable(cause: str) -> None:
    if os.environ.get(REQUIRED):
        pytest.fail(cause)
    pytest.skip(cause)
