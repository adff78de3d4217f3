"""The commands of the README, as tests run them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

README: Final = Path(__file__).parents[2] / "README.md"


def walk() -> list[str]:
    """Return the commands of the walk, in order; what follows `# ` is what a command says."""
    part = README.read_text().partition("<!-- walk")[2].partition("<!-- end of walk -->")[0]
    blocks = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def helm() -> list[str]:
    """Return the commands that install meshgw by Helm, in order."""
    part = README.read_text().partition("\n## Install in a cluster\n")[2].partition("\n## ")[0]
    return re.findall(r"^    (helm .*)$", part, re.MULTILINE)
