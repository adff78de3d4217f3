from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from meshgw.observe.heap import MANY, unwatched, watched_by_size


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_inside_and_what_is_there_is_frozen() -> None:
    gc.unfreeze()
    with unwatched():
        assert not gc.isenabled()
        rows = [[number] for number in range(10_000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(rows)


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with unwatched():
        pass
    assert not gc.isenabled()


def test_the_collector_comes_back_after_an_error() -> None:
    with pytest.raises(RuntimeError), unwatched():
        raise RuntimeError
    assert gc.isenabled()


def test_only_large_batches_are_worth_it() -> None:
    assert isinstance(watched_by_size({"a": {1: 1}}), nullcontext)
    assert not isinstance(watched_by_size({"a": range(MANY - 1), "b": range(1)}), nullcontext)
