from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from meshgw.api.depth import MAX_DEPTH, is_deep, prune

STRINGS = ["{[", '"}', "\\", '\\"{', "", "}}]]", 'a"b', "{" * 20]


def _height(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(_height, value.values() if isinstance(value, dict) else value), default=0)


def _make(chance: random.Random, levels: int) -> Any:
    kind = chance.random()
    if levels == 0 or kind < 0.2:
        return chance.choice([*STRINGS, 1, None])
    many = range(chance.randint(0, 3))
    if kind < 0.6:
        return {chance.choice(STRINGS) + str(number): _make(chance, levels - 1) for number in many}
    return [_make(chance, levels - 1) for _ in many]


@pytest.mark.parametrize("seed", range(20))
def test_depth_is_that_of_the_decoded_value_whatever_is_in_strings(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(30):
        value = _make(chance, chance.randint(1, 14))
        text, height = json.dumps(value).encode(), _height(value)
        assert [is_deep(text, limit) for limit in range(16)] == [height > limit for limit in range(16)]
        for depth in range(1, 16):
            assert _height(json.loads(prune(text, depth))) == min(height, depth)


@pytest.mark.parametrize("depth", [90, 99, 100, 101, 102, 110, 973, 978, 5000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_bound_holds_for_any_depth(depth: int, opening: bytes, closing: bytes) -> None:
    deep = opening * (depth - 1) + b"[]" + closing * (depth - 1)
    wide = b'{"a":[' + b"{}," * 500 + b'{}],"b":' + deep + b"}"
    assert is_deep(deep) == (depth > MAX_DEPTH)
    assert is_deep(wide) == (depth + 1 > MAX_DEPTH)
    kept = msgspec.json.decode(prune(wide, MAX_DEPTH + 1))
    assert len(kept["a"]) == 501
    assert _height(kept) == min(depth + 1, MAX_DEPTH + 1)


def test_wide_documents_are_not_deep() -> None:
    assert not is_deep(json.dumps([{"a": [{}], "b": "{["}] * 10_000).encode())


@pytest.mark.parametrize("text", [b"", b'"{' * 200, b"[" * 2000, b'["' + b"\\" * 3001, b"]" * 500, b'{"a' * 500])
def test_what_is_no_json_stays_none(text: bytes) -> None:
    is_deep(text)
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(prune(text, MAX_DEPTH))
