"""What the API server shows of objects, as values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from meshgw.api.meta import Key, Resource
from meshgw.api.registry import Kind
from meshgw.ir.finding import Finding


class Observed(Struct, frozen=True, gc=False):
    """What writers need of an object and facts do not have.

    `status` is the raw JSON of `.status`, empty if there is none or if the controller writes no status of this kind.
    """

    uid: str
    resource_version: str
    generation: int
    status: bytes = b""


class Seen(Struct, frozen=True):
    """One object as last seen.

    | object | observed | means |
    |---|---|---|
    | set | set | this is the object now; with problems it is a stand-in, or lacks what is too long |
    | None | set | it cannot be read: what was known of it stays in force, `problems` says why |
    | None | None | it is gone |
    """

    key: Key
    object: Resource | None
    observed: Observed | None
    problems: tuple[Finding, ...] = ()

    @property
    def gone(self) -> bool:
        """Whether the object no longer exists."""
        return self.observed is None


Sink = Callable[[Kind, Sequence[Seen]], None]
"""Takes what was seen of a kind, on the event loop; a list after a gap comes as one call with the difference.

If it raises, it is given each object of that call again by itself."""
