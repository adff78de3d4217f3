"""Policy features. Each is one module with one `Feature`; this list is all that names them.

The order of the list is the order of their steps. Where a filter stands is its slot's to say.
"""

from __future__ import annotations

from meshgw.features.cors import CORS
from meshgw.features.external_auth import EXTERNAL_AUTH
from meshgw.features.feature import Feature, RouteFilter, RouteScope, Slot
from meshgw.features.sessions import SESSIONS

FEATURES: tuple[Feature, ...] = (CORS, EXTERNAL_AUTH, SESSIONS)

__all__ = ["FEATURES", "Feature", "RouteFilter", "RouteScope", "Slot"]
