from __future__ import annotations

import pytest

from meshgw.api.duration import milliseconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0s", 0), ("500ms", 500), ("10s", 10_000), ("1h30m", 5_400_000), ("1m1ms", 60_001), ("1s1s", 2_000)],
)
def test_a_duration_has_a_length(text: str, expected: int) -> None:
    assert milliseconds(text) == expected
