"""The garbage collector, kept from looking at rows again and again.

Rows hold no cycles, so counting references frees them. There are a hundred for each route: one look at those of 5,000
routes stops the event loop for 140 ms, and filling the tables would cause nine such looks.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sized
from typing import Any, Final

MANY: Final = 1_000
"""Facts in one batch from which on it is worth a look at what is new, and no other after it."""


@contextlib.contextmanager
def unwatched() -> Iterator[None]:
    """Collect nothing inside; what is there at the end is left to reference counts for good."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect()
        gc.freeze()
        if was_enabled:
            gc.enable()


def watched_by_size(batch: Mapping[Any, Sized]) -> contextlib.AbstractContextManager[None]:
    """Return `unwatched` for a batch of many facts, and nothing special for a small one."""
    many = sum(map(len, batch.values())) >= MANY
    return unwatched() if many else contextlib.nullcontext()
