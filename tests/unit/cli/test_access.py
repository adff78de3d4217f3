"""Verbs over a cluster end with code 3 when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from meshgw.cli.main import main

COMMANDS = (["check"], ["proxy", "list"], ["proxy", "config", "pod", "routes"])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_cluster_that_cannot_be_reached_is_one_line_and_code_3(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{name: x, context: {cluster: x, user: x}}]\n"
        "clusters: [{name: x, cluster: {server: 'http://127.0.0.1:9'}}]\nusers: [{name: x, user: {token: s3cret}}]\n"
    )
    done = CliRunner().invoke(main, [*command, "--kubeconfig", str(path)])
    assert done.exit_code == 3
    assert done.output.startswith("error: ")
    assert len(done.output.splitlines()) == 1
    assert "s3cret" not in done.output


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_a_kubeconfig_it_says_so(tmp_path: Path, command: list[str]) -> None:
    done = CliRunner().invoke(main, [*command, "--kubeconfig", str(tmp_path / "none")])
    assert (done.exit_code, done.output.startswith("error: ")) == (3, True)
