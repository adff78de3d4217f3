"""Tests mirror the package: every module has a test of its own, or a reason here for having none.

So do the Makefile and what is said of it: it has the targets that people are told of.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import meshgw

PACKAGE = Path(meshgw.__file__).parent
TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent

VALUES = "values and handles only: whoever makes or reads them tests them"
ELSEWHERE: dict[str, tuple[str, str]] = {
    "api/check_core.py": ("unit/api/test_check.py", "rules behind `check`, its one caller"),
    "api/check_filter.py": ("unit/api/test_check_route.py", "the filters' part of the rules for routes"),
    "api/check_gateway.py": ("unit/api/test_check.py", "rules behind `check`, its one caller"),
    "api/filters.py": ("unit/api/test_schema.py", VALUES),
    "api/gateway.py": ("unit/api/test_schema.py", VALUES),
    "api/grpc.py": ("unit/api/test_schema.py", VALUES),
    "api/http.py": ("unit/api/test_schema.py", VALUES),
    "api/istio.py": ("unit/api/test_schema.py", VALUES),
    "api/l4.py": ("unit/api/test_schema.py", VALUES),
    "api/policy.py": ("unit/api/test_schema.py", VALUES),
    "cluster/application.py": ("cluster/test_controller.py", "it wires the parts, which needs all of them"),
    "config.py": ("unit/cli/test_run.py", VALUES),
    "demo/backend.py": ("envoy/test_demo.py", "a server of the demo, which needs Envoy"),
    "demo/mesh.py": ("envoy/test_demo.py", "it starts the demo's processes"),
    "demo/nodes.py": ("envoy/test_demo.py", "it starts the demo's processes"),
    "emit/chains.py": ("unit/emit/test_listener.py", "the chains of the listeners"),
    "emit/connect.py": ("unit/emit/test_waypoint.py", "the outer half of a waypoint"),
    "emit/internal.py": ("unit/emit/test_waypoint.py", "the inner half of a waypoint"),
    "emit/tables.py": ("property/test_pipeline.py", VALUES),
    "identity/errors.py": ("unit/identity/test_istiod.py", VALUES),
    "identity/observer.py": ("unit/identity/test_rotate.py", "a protocol without code"),
    "ir/route.py": ("unit/resolve/test_routes.py", VALUES),
    "kube/discovery.py": ("kube/test_watches.py", "what a real API server has"),
    "kube/errors.py": ("kube/test_client.py", VALUES),
    "kube/guarded.py": ("kube/test_lease.py", "the last look of one who holds a lease"),
    "kube/lease.py": ("kube/test_lease.py", "an election needs a real API server"),
    "kube/seen.py": ("unit/kube/test_reading.py", VALUES),
    "kube/watches.py": ("kube/test_watches.py", "reflectors of a real API server"),
    "names.py": ("golden/test_golden.py", VALUES),
    "pipeline.py": ("property/test_pipeline.py", "the list of steps, held to its promises as a whole"),
    "resolve/tables.py": ("property/test_pipeline.py", VALUES),
    "standalone/application.py": ("envoy/test_application.py", "it wires the parts, which needs all of them"),
    "xds/events.py": ("unit/xds/test_session.py", VALUES),
}
"""Modules without a test of their own: the test that covers them, and why it does."""


def _modules() -> set[str]:
    found = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    return {str(path) for path in found if path.name not in {"__init__.py", "__main__.py"}}


def _has_test(module: str) -> bool:
    path = Path(module)
    own = path.parent / f"test_{path.name}"
    return any((TESTS / tier / own).exists() for tier in ("unit", "envoy"))


def test_every_module_has_a_test_or_a_reason() -> None:
    assert {module for module in _modules() if not _has_test(module)} == set(ELSEWHERE)


def test_the_tests_that_stand_in_for_others_exist() -> None:
    assert [test for test, _reason in ELSEWHERE.values() if not (TESTS / test).exists()] == []


def test_every_unit_test_is_of_a_module() -> None:
    """A test whose module is gone has lost its place; those below are of files that are no modules."""
    other = {"test_certs.py", "test_examples.py", "test_layout.py", "api/test_schema.py"}
    modules = _modules()
    tests = {str(path.relative_to(TESTS / "unit")) for path in (TESTS / "unit").rglob("test_*.py")}
    named = {str(Path(test).parent / Path(test).name.removeprefix("test_")): test for test in tests - other}
    assert {test for module, test in named.items() if module not in modules} == set()


def test_make_has_every_target_once_and_all_that_people_are_told_of() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)", makefile, re.MULTILINE)
    targets = Counter(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert targets == Counter(phony.split())
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "kind-configs").glob("*.md")]
    told = {name for page in pages for name in re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(), re.MULTILINE)}
    assert told >= {"test", "test-cluster", "test-kind"}
    assert told <= targets.keys()
