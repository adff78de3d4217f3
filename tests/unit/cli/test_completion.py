"""`meshgw completion`: a script for each shell."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from meshgw.cli.main import main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert "_MESHGW_COMPLETE" in done.output


def test_another_shell_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["completion", "cmd"]).exit_code == 2
