"""Every golden case: the real Envoy takes the static configuration of each of its Gateways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meshgw.emit.secret import SYSTEM_ROOTS_FILE
from meshgw.emit.static import render_static
from meshgw.ir.backend import WorkloadCertificate
from meshgw.resolve import tables as t
from tests.golden.case import CASES, ROOT, commit_all, read_case
from tests.rig.certs import authority, spiffe
from tests.rig.envoy import validate_many

BATCH = 60
"""Cases of one test: enough to keep Envoys busy, few enough to end in time."""


@pytest.mark.parametrize("start", range(0, len(CASES), BATCH))
async def test_envoy_accepts_the_golden_configurations(start: int, tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority().root)
    configs = {
        f"{path.relative_to(ROOT)}: {gateway}": config
        for path in CASES[start : start + BATCH]
        for gateway, config in _configurations(path, str(roots)).items()
    }
    assert configs
    verdicts = await validate_many(configs.items())
    assert {name: verdict.error for name, verdict in verdicts.items() if not verdict} == {}


def _configurations(path: Path, roots: str) -> dict[str, Any]:
    """Return the configuration of each Gateway, with real certificates in the place of the mesh's stand-ins."""
    case = read_case((path / "in.yaml").read_text())
    leaf = spiffe("waypoint")
    certificate = WorkloadCertificate(chain=leaf.chain, key=leaf.key, roots=leaf.root)
    waiting = case.circumstances[t.WORKLOAD_CERTIFICATES]
    case.circumstances[t.WORKLOAD_CERTIFICATES] = dict.fromkeys(waiting, certificate)
    written = render_static(commit_all(case))
    return {name: json.loads(json.dumps(config).replace(SYSTEM_ROOTS_FILE, roots)) for name, config in written.items()}
