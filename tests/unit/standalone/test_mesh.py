"""Where a standalone instance has its mesh certificates from."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshgw.config import MeshSettings
from meshgw.standalone.mesh import MeshSettingsError, certificate_source

NOWHERE = "unix:/nowhere/ca.sock"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (MeshSettings(trust_domain="NO SUCH"), "is not a trust domain"),
        (MeshSettings(ca_address="127.0.0.1:15012"), "--mesh-ca-roots and --mesh-token"),
        (MeshSettings(ca_address="what?", ca_roots=Path("r"), token=Path("t")), "is not host:port"),
    ],
)
async def test_settings_that_cannot_work_are_one_line(settings: MeshSettings, said: str) -> None:
    with pytest.raises(MeshSettingsError, match=said):
        async with certificate_source(settings, socket=NOWHERE):
            pass
