"""Keeps up with the objects of one kind: lists them, watches them, and tells a sink what changed.

What was passed on stays in force until the API server says otherwise: through lost connections, refusals and lists that
have to be made again. A kind that goes takes its objects with it only if it is optional and its absence cannot widen
access. The objects of a required or strict kind outlive the removal of their CustomResourceDefinition, although the API
server deletes them one by one: nobody revokes a policy or tears down every gateway that way knowingly. They stay until
the kind is back and a list tells which of them are, or until the controller starts anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Final

import msgspec
import structlog

from meshgw.api.core import Secret
from meshgw.api.excerpt import KEYS
from meshgw.api.meta import Key, ObjectRef, Resource
from meshgw.api.registry import Kind
from meshgw.api.scalars import printable
from meshgw.ir.finding import Finding
from meshgw.kube.client import JSON, Client
from meshgw.kube.clock import Backoff, Clock, SystemClock
from meshgw.kube.discovery import METADATA_LIST, METADATA_ONLY, Catalog, is_built_in
from meshgw.kube.errors import AccessError, ApiError, IdleError, NamelessError, UnreachableError
from meshgw.kube.paths import crd_name, path_of
from meshgw.kube.reading import WRONG_SHAPE, Event, Outline, Reader
from meshgw.kube.rows import Rows, is_older
from meshgw.kube.seen import Observed, Seen, Sink

__all__ = ["Observed", "Reflector", "Seen", "Sink"]

NOT_SERVED: Final = "MG9107"
REFUSED: Final = "MG9108"

PAGE: Final = 500
"""Objects per request where the API server does not stream lists."""

BULKY_PAGE: Final = 50
"""The same of kinds whose objects may each have a megabyte that nobody reads."""

_SELECTED: Final[Mapping[type[Resource], str]] = {
    Secret: "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token"
}
"""By struct, what is followed of a kind at most: the releases of Helm are many and long, and tokens are nobody's."""

IDLE: Final = 150.0
"""Seconds of silence after which a watch is opened again; an API server sends a bookmark each minute."""

_AWAY: Final = 5.0
"""Longest wait for an API server that is not reached: what changed meanwhile is soon known once it is back."""

_LISTING: Final = 60.0
_WATCH: Final = 300.0
_BRIEF: Final = 1.0
_PATIENCE: Final = 4

Report = Callable[[Kind, str, Finding | None], None]
"""Takes kind, namespace and what is wrong with reading them, None when nothing is any more."""

_log = structlog.get_logger(__name__)


def _ignore(kind: Kind, namespace: str, problem: Finding | None) -> None:
    del kind, namespace, problem


_PRESENT: Final = frozenset({"ADDED", "MODIFIED"})

_Listing = dict[Key, tuple[Observed, Seen | None]]
"""The objects of a list, and what is to be passed on of each."""


class Reflector:
    """Follows one kind, in one namespace or in all, until it is cancelled.

    `synced` is set once all objects have been passed on, or an optional kind is known to be missing. `problem` is what
    keeps it from being up to date although the API server answers.
    """

    def __init__(
        self,
        client: Client,
        kind: Kind,
        sink: Sink,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        catalog: Catalog | None = None,
        report: Report = _ignore,
        clock: Clock | None = None,
        page: int = 0,
        idle: float = IDLE,
    ) -> None:
        self.kind: Final = kind
        self.namespace: Final = namespace
        self.synced: Final = asyncio.Event()
        self.problem: Finding | None = None
        self.failure = ""
        """Why the API server was not reached at the last try, empty if it was."""
        self.refusal = 0
        """The HTTP status with which the API server refused last, 0 while it answers as it should."""
        self.lists = 0
        """How many lists were completed: one, and one for every gap."""
        self.faults = 0
        """How often the sink failed to take an object."""
        self._client = client
        self._sink = sink
        self._catalog = catalog or Catalog(client)
        self._report = report
        self._clock: Clock = clock or SystemClock()
        self._page = page or (BULKY_PAGE if kind.struct in KEYS else PAGE)
        self._idle = idle
        fields = ",".join(filter(None, (field_selector, _SELECTED.get(kind.struct, ""))))
        selectors = {"labelSelector": label_selector, "fieldSelector": fields}
        self._selectors = {name: value for name, value in selectors.items() if value}
        self._accept = (METADATA_ONLY, METADATA_LIST) if metadata_only else (JSON, JSON)
        self._reader = Reader(kind)
        self._rows = Rows()
        self._backoff = Backoff(self._clock)
        self._away = Backoff(self._clock, most=_AWAY)
        self._log = _log.bind(kind=kind.name, namespace=namespace)
        self._outlives = not is_built_in(kind) and (kind.strict or not kind.optional)
        self._streams = True
        self._leaving = False
        self._nameless = False
        self._doubtful = False
        self._version = ""
        self._position = ""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def version(self) -> str:
        """The served version in which the kind is read, empty as long as there is none."""
        return self._version

    async def run(self) -> None:
        """Keep up until cancelled."""
        while True:
            try:
                await self._turn()
                if self._leaving:
                    self._position = ""  # only a list tells which objects a kind has when it is back
            except ApiError as error:
                await self._clock.sleep(self._refused(error))
            except IdleError as error:
                self._log.debug("the watch was silent and is opened again", error=str(error))
                # Who ignores the wish for a streaming list never ends it.
                self._streams = self._streams and bool(self._position)
                self._doubtful = True  # so is one from a position that the server has not reached
            except (UnreachableError, AccessError) as error:
                if not self._away.failures:
                    self._log.info("the API server is not reached", error=str(error))
                self.failure = str(error)
                self._doubtful = self._doubtful or self._away.failures > 0  # more than a broken connection
                await self._clock.sleep(self._away.next())

    def drop(self) -> None:
        """Tell the sink that all objects are gone, for one who follows them no longer."""
        gone = list(self._rows)
        for key in gone:
            self._rows.remove(key)
        self._pass_on([Seen(key, None, None) for key in gone])

    async def _turn(self) -> None:
        if not self._version:
            await self._find()
        elif self._position and self._doubtful:
            await self._verify()
        elif self._position:
            await self._watch()
        elif self._streams:
            await self._stream()
        else:
            await self._list()

    async def _find(self) -> None:
        """Find the version to read, or wait for something to happen to the kind."""
        presence = await self._catalog.look(self.kind)
        if presence.version:
            self._version = presence.version
            return
        if presence.defined:
            # It takes the API server a moment to serve what was defined.
            if self._backoff.failures > _PATIENCE:
                self._complain(NOT_SERVED, f"none of the versions {', '.join(self.kind.versions)} is served")
                if self.kind.optional and not self.kind.strict:
                    self.synced.set()
        elif not self.kind.optional or (self._outlives and len(self._rows)):
            self._complain(NOT_SERVED, "the kind is not installed")
        else:
            self.drop()
            self._clear()
            self.synced.set()
        if await self._catalog.wait(self.kind, self._backoff.next()):
            self._backoff.reset()

    def _refused(self, error: ApiError) -> float:
        """Take a refusal; return the seconds to wait."""
        self._log.info("the API server refuses", error=str(error))
        self._away.reset()
        self.refusal = error.status
        if error.status == 404:
            self._version = self._position = ""
        elif error.status == 410:
            self._position = ""
        elif error.status in {400, 422} and self._streams and not self._position:
            self._streams = False
            return 0.0
        elif error.status in {401, 403}:
            self._complain(REFUSED, error.message)
        return max(self._backoff.next(), error.retry_after)

    @property
    def _path(self) -> str:
        return path_of(self.kind, namespace=self.namespace, version=self._version)

    async def _list(self) -> None:
        """List page by page; a list that expires meanwhile is refused and starts anew."""
        found: _Listing = {}
        self._nameless = False
        after: dict[str, str] = {}
        while True:
            query = {**self._selectors, "limit": str(self._page), **after}
            body = await self._client.request("GET", self._path, query=query, accept=self._accept[1], timeout=_LISTING)
            page = self._reader.page(body)
            for raw in page.items or ():
                outline = self._outline(raw)
                if outline is not None:
                    self._enlist(outline, found)
            if not page.metadata.continue_:
                await self._complete(found, page.metadata.resource_version)
                return
            after = {"continue": page.metadata.continue_}

    async def _verify(self) -> None:
        """Give up a position that the API server has not reached yet: its store was put back to an earlier state.

        It would take the watch, and be silent until it comes there.
        """
        query = {**self._selectors, "limit": "1"}
        body = await self._client.request("GET", self._path, query=query, accept=METADATA_LIST, timeout=_LISTING)
        if is_older(self._reader.page(body).metadata.resource_version, self._position):
            self._log.warning("the API server is in an earlier state than before, and is read anew")
            self._position = ""
        self._doubtful = False

    async def _stream(self) -> None:
        """List by a watch that begins with all objects, and go on watching."""
        found: _Listing = {}
        self._nameless = False
        wish = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        async with contextlib.aclosing(self._open(wish)) as batches:
            try:
                async with asyncio.timeout(_LISTING):
                    rest = await self._initial(batches, found)
            except TimeoutError:
                raise IdleError("the list did not end in time") from None
            await self._apply(rest)
            async for batch in batches:
                await self._apply(batch)

    async def _initial(self, batches: AsyncIterator[list[Event]], found: _Listing) -> list[Event]:
        """Take the objects that a streaming list begins with; return what came with its end."""
        async for batch in batches:
            for number, event in enumerate(batch):
                outline = self._outline(event.object)
                if outline is None:
                    continue
                if event.type in _PRESENT:
                    self._enlist(outline, found)
                elif event.type == "DELETED":
                    found.pop(outline.key, None)
                elif outline.ends_initial:
                    await self._complete(found, outline.observed.resource_version)
                    return batch[number + 1 :]
        raise UnreachableError("the list ended before it was complete")

    async def _watch(self) -> None:
        """Watch from the position on until the server ends it."""
        async with contextlib.aclosing(self._open({"resourceVersion": self._position})) as batches:
            async for batch in batches:
                await self._apply(batch)

    async def _open(self, query: dict[str, str]) -> AsyncGenerator[list[Event]]:
        """Yield the events of a watch; an error among them is raised."""
        seconds = _WATCH * (1 + self._clock.chance())
        query = {**self._selectors, **query, "watch": "true", "allowWatchBookmarks": "true"}
        query["timeoutSeconds"] = f"{seconds:.0f}"
        opened, silent = self._clock.now(), True
        batches = self._client.batches(self._path, query=query, idle=self._idle, accept=self._accept[0])
        async with contextlib.aclosing(batches):
            async for batch in batches:
                if not batch:
                    self._settle()
                    continue
                silent = False
                self._backoff.reset()
                self._away.reset()
                events, error = self._events(batch)
                if events:
                    yield events
                if error is not None:
                    raise error
        if silent and self._clock.now() - opened < _BRIEF:
            raise UnreachableError("the watch was closed at once")

    def _events(self, lines: Sequence[bytes]) -> tuple[list[Event], Exception | None]:
        """Return the events of some lines, and the error that ends them if one does."""
        events: list[Event] = []
        try:
            for line in lines:
                event = self._reader.event(line)
                if event.type == "ERROR":
                    failure = self._reader.failure(event)
                    return events, ApiError(failure.code, failure.reason, failure.message)
                events.append(event)
        except UnreachableError as error:
            return events, error
        return events, None

    def _outline(self, raw: msgspec.Raw) -> Outline | None:
        """Return the identity of an object; None if it has none, which leaves out that object and no other."""
        try:
            return self._reader.outline(raw)
        except NamelessError as error:
            self._log.warning("an object does not say which it is and is left out", error=str(error))
            self._nameless = True
            self._complain(WRONG_SHAPE, "an object does not say which it is and is left out")
            return None

    def _enlist(self, outline: Outline, found: _Listing) -> None:
        """Add an object to a list, and read it if it is not known as it is."""
        key, observed = outline.key, outline.observed
        other = found.get(key)
        if other is not None and is_older(observed.resource_version, other[0].resource_version):
            return
        found[key] = observed, None if self._rows.is_listed(key, observed) else self._read(outline)

    async def _complete(self, found: _Listing, version: str) -> None:
        """Pass on the difference that a list makes."""
        # An object that does not say which it is may be any of those that are missing.
        missing = [] if self._nameless else [key for key in self._rows if key not in found]
        if missing and self._outlives and await self._catalog.is_leaving(self.kind):
            self._outlive()
            missing = []
        else:
            self._leaving = False
        changed = []
        for observed, seen in found.values():
            if seen is not None:
                self._note(seen, observed)
                changed.append(seen)
        for key in missing:
            self._rows.remove(key)
            changed.append(Seen(key, None, None))
        self._rows.settle()
        self._pass_on(changed)
        self._position = version
        self._doubtful = False
        self._backoff.reset()
        self._away.reset()
        self._settle()
        self.lists += 1
        self.synced.set()

    async def _apply(self, events: Sequence[Event]) -> None:
        """Pass on the news among the events of a watch."""
        told = ((event.type, self._outline(event.object)) for event in events)
        outlines = [(type_, outline) for type_, outline in told if outline is not None]
        doubtful = self._outlives and not self._leaving and any(type_ == "DELETED" for type_, _ in outlines)
        # Asked before the events count as taken: where there is no answer they come again.
        if doubtful and await self._catalog.is_leaving(self.kind):
            self._outlive()
        changed = []
        for type_, outline in outlines:
            key, observed = outline.key, outline.observed
            self._position = observed.resource_version
            if type_ == "BOOKMARK":
                self._rows.settle()
            elif type_ == "DELETED" and not self._leaving and self._rows.is_news(key, observed, gone=True):
                if self._rows.remove(key, observed.resource_version):
                    changed.append(Seen(key, None, None))
            elif type_ in _PRESENT and self._rows.is_news(key, observed):
                seen = self._read(outline)
                self._note(seen, observed)
                changed.append(seen)
        self._pass_on(changed)

    def _read(self, outline: Outline) -> Seen:
        key = outline.key
        has_good = self._rows.has_good(key, outline.observed.uid)
        seen = self._reader.read(outline, has_good=has_good)
        if seen.object is None and not has_good and key in self._rows:
            # What is in force is of another incarnation, which is gone.
            return Seen(key, None, None, seen.problems)
        return seen

    def _note(self, seen: Seen, observed: Observed) -> None:
        is_stand_in = self.kind.strict and bool(seen.problems)
        self._rows.put(seen.key, observed, good=seen.object is not None and not is_stand_in)

    def _pass_on(self, seen: Sequence[Seen]) -> None:
        """Give the sink what was seen; if it fails, one by one, so that it misses nothing but what it cannot take."""
        if not seen:
            return
        try:
            self._sink(self.kind, seen)
        except Exception as error:  # noqa: BLE001 - what one object does to a sink must not end the reading of all
            if len(seen) == 1:
                self.faults += 1
                # The message of the error might quote the object.
                self._log.error("an object could not be taken in", key=str(seen[0].key), error=type(error).__name__)
                return
            for each in seen:
                self._pass_on((each,))

    def _outlive(self) -> None:
        self._leaving = True
        self._complain(NOT_SERVED, "the kind is being removed, and its objects with it")

    def _settle(self) -> None:
        """Note that the API server answers as it should."""
        self.failure = ""
        self.refusal = 0
        if not self._leaving and not self._nameless:
            self._clear()

    def _complain(self, code: str, message: str) -> None:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        kept = f"; the {len(self._rows)} last seen stay in force" if len(self._rows) else ""
        if is_built_in(self.kind):
            ref = ObjectRef("Kind", "", self.kind.name)
        else:
            ref = ObjectRef("CustomResourceDefinition", "", crd_name(self.kind))
        self._set(Finding(code=code, object=ref, message=printable(message + where + kept)))

    def _clear(self) -> None:
        self._set(None)

    def _set(self, problem: Finding | None) -> None:
        if problem != self.problem:
            self.problem = problem
            self._report(self.kind, self.namespace, problem)
