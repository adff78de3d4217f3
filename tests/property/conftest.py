"""How hard properties are tried: `make test-fast` looks at four examples of ten."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("quick", max_examples=40)
if os.environ.get("MESHGW_QUICK"):
    settings.load_profile("quick")
