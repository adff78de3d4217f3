"""Where listeners are bound."""

from __future__ import annotations

import pytest

from meshgw.ir.gateway import Binding


@pytest.mark.parametrize(
    ("port", "offset", "bound"), [(80, 0, 80), (80, 10000, 10080), (1023, 1, 1024), (8080, 10000, 8080)]
)
def test_only_privileged_ports_are_moved(port: int, offset: int, bound: int) -> None:
    assert Binding(port_offset=offset).port(port) == bound
