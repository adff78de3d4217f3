"""What the operator chose for all gateways, as the steps read it."""

from __future__ import annotations

from meshgw.engine import View
from meshgw.ir.gateway import Settings
from meshgw.resolve.tables import SETTINGS, SINGLE


def read_settings(view: View) -> Settings:
    """Return the operator's settings; the defaults while there are none."""
    return view.get(SETTINGS, SINGLE) or Settings()
