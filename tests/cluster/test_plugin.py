from __future__ import annotations

import os
import shutil

import pytest

from tests.cluster import local, node, plugin


def test_machine_that_cannot_run_a_cluster_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "root" in (local.why_not() or "")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda program: None if program == "runc" else f"/bin/{program}")
    monkeypatch.setattr(node, "plugins", lambda: None)
    assert (local.why_not() or "").endswith("apt-get install containernetworking-plugins runc")


def test_tests_are_skipped_there_and_fail_where_they_must_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(plugin.REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no cluster here"):
        plugin._unavailable("no cluster here")
    monkeypatch.setenv(plugin.REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match="no cluster here"):
        plugin._unavailable("no cluster here")


@pytest.mark.usefixtures("apiserver")
def test_use_of_a_fixture_marks_a_test(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("apiserver")
    assert request.node.get_closest_marker("timeout").args[0] >= 240
    assert not request.node.get_closest_marker("cluster")
