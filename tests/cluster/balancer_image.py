"""The image that kind puts before several API servers, without a registry: Envoy, and the shell that starts it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from tests.cluster.archive import Config, Layer
from tests.cluster.images import Recipe, add_envoy, add_program, pack
from tests.cluster.programs import ProgramsError, module_folder

_PROGRAMS: Final = ("bash", "cat", "chmod", "cp", "mkdir", "mv", "sleep")


def balancer_image() -> Path:
    """Return an archive of the image, under the name by which the pinned kind asks for it."""
    source = module_folder("kind", "sigs.k8s.io/kind") / "pkg" / "cluster" / "internal" / "loadbalancer" / "const.go"
    found = re.search(r'const Image = "(\S+)"', source.read_text())
    if found is None:
        raise ProgramsError(f"{source} names no image")
    return pack(found[1], Recipe((), _layer, Config()))


def _layer() -> Layer:
    made = Layer()
    add_envoy(made)
    for program in _PROGRAMS:
        add_program(made, Path(shutil.which(program) or program), f"/bin/{program}")
    made.link("/bin/sh", "bash")
    made.folder("/tmp", mode=0o1777)
    return made
