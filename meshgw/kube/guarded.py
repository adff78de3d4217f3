"""Bodies of requests that are sent only if somebody still allows it at the very last moment."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import BytesPayload
from aiohttp.abc import AbstractStreamWriter


class GuardedBody(BytesPayload):
    """A body whose guard is asked right before its first byte goes to the socket, and the headers with it.

    What the guard raises is kept in `refusal`; nothing was sent then.
    """

    def __init__(self, value: bytes, guard: Callable[[], object]) -> None:
        super().__init__(value)
        self.refusal: Exception | None = None
        self._guard = guard

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Ask, then write."""
        try:
            self._guard()
        except Exception as error:
            self.refusal = error
            raise
        await super().write_with_length(writer, content_length)
