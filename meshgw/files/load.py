"""Files to objects, where what was good stays in force until something good replaces it.

An object leaves only when its document is cleanly removed. A document of the wrong shape leaves the
last good version of its object in force, and so does a file that cannot be read or has a document
that cannot be told: it keeps every object that it held and that is now missing from it.
"""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from io import FileIO
from os import PathLike
from pathlib import PurePath
from types import MappingProxyType
from typing import Final, NamedTuple

from msgspec import Struct

from meshgw.api.meta import ObjectRef, Resource
from meshgw.api.registry import REGISTRY, Registry
from meshgw.files.scan import STDIN, Change, Scan, Signature, is_unsettled, normalise, scan
from meshgw.files.source import (
    DUPLICATE,
    UNKNOWN_KIND,
    UNREADABLE_FILE,
    Claim,
    Decoder,
    FileProblem,
    ObjectId,
    Source,
)

MAX_FILE_SIZE: Final = 256 * 1024 * 1024
_PIECE: Final = 64 * 1024  # most files are smaller

_NONE: Final[frozenset[ObjectId]] = frozenset()  # one for all files: Python makes each empty one anew


class Origin(NamedTuple):
    """Where an object is defined: ``str()`` gives ``routes.yaml:12``."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Located(NamedTuple):
    """An object and where it is defined."""

    resource: Resource
    origin: Origin


class Loaded(Struct, frozen=True, kw_only=True):
    """What is in force after a load; ``objects`` is a view that later loads change.

    ``changed`` holds what this load changed, with None for objects that left. ``retained`` are the
    objects in force although their definition is now broken. ``refused`` are those defined with the
    wrong shape that never had a good version: nothing is in force for them but, where there is one, what
    stands for them.
    """

    objects: Mapping[ObjectId, Located]
    problems: tuple[FileProblem, ...]
    retained: tuple[ObjectRef, ...] = ()
    refused: Mapping[ObjectRef, Resource | None] = MappingProxyType({})
    changed: Mapping[ObjectId, Resource | None]


class _File(NamedTuple):
    """A file as last read; ``kept`` are objects it held and cannot tell any more."""

    signature: Signature | None
    source: Source
    claims: dict[ObjectId, list[Claim]]
    kept: frozenset[ObjectId] = _NONE
    digest: bytes = b""
    unreadable: str = ""


class _Place(NamedTuple):
    """A claim among those of all files; ``number`` counts the claims of one file to one object."""

    file: str
    number: int
    claim: Claim | None


def _read_stdin() -> bytes:
    return sys.stdin.buffer.read(MAX_FILE_SIZE + 1)


class Loader:
    """Loads files again and again; a load costs a look at every file, and work for what changed.

    Of several definitions of an object the first one in name order wins: ``paths`` in their order,
    below each the names in theirs.
    """

    def __init__(
        self,
        paths: Sequence[str | PathLike[str]],
        *,
        registry: Registry = REGISTRY,
        read_stdin: Callable[[], bytes] = _read_stdin,
    ) -> None:
        self.paths: Final = normalise(paths)
        self._registry = registry
        self._decoder = Decoder(registry)
        self._read_stdin = read_stdin
        self._files: dict[str, _File] = {}
        self._order: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._holders: dict[ObjectId, tuple[str, ...]] = {}
        self._objects: dict[ObjectId, Located] = {}
        self._numbers: dict[ObjectId, int] = {}
        self._retained: set[ObjectId] = set()
        self._refused: dict[ObjectId, Resource | None] = {}
        self._problems: dict[str, tuple[FileProblem, ...]] = {}
        self._duplicates: dict[ObjectId, tuple[FileProblem, ...]] = {}
        self._unknown: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
        self._scan_errors: dict[str, str] = {}
        self._seen: Scan | None = None
        self._open: set[str] = set()  # files that every load reads again: too young, or not to be read

    @property
    def decoded(self) -> int:
        """How many documents were decoded so far."""
        return self._decoder.decoded

    def load(self, found: Scan | Change | None = None) -> Loaded:
        """What is in force now; ``found`` saves looking at the files again.

        A change since the scan of the load before saves comparing them too: it costs its own files and no more.
        """
        change = found if isinstance(found, Change) else Change(found or scan(self.paths))
        now = change.now
        suspects = change.files | self._open if change.before and change.before is self._seen else self._suspects(now)
        self._seen, self._scan_errors = now, now.errors
        touched: set[ObjectId] = set()
        for path in sorted(suspects):
            signature = now.files.get(path)
            if signature is not None:
                touched |= self._read(path, signature)
            elif path in self._files:
                touched |= self._lose(path)
            file = self._files.get(path)
            if file is not None and file.signature is None:
                self._open.add(path)
            else:
                self._open.discard(path)
        changed = self._settle(touched)
        return Loaded(
            objects=MappingProxyType(self._objects),
            problems=self._all_problems(),
            retained=_refs(self._retained),
            refused={ref: self._refused[ref.kind, ref.key] for ref in _refs(self._refused)},
            changed=changed,
        )

    def _suspects(self, found: Scan) -> set[str]:
        """The files that are not as they were last read, or were not read."""
        files = self._files
        gone = files.keys() - found.files.keys()
        return gone.union(
            path for path, signature in found.files.items() if path not in files or files[path].signature != signature
        )

    def _read(self, path: str, signature: Signature) -> set[ObjectId]:
        now = time.time_ns()
        try:
            data = self._read_stdin() if path == STDIN else _content(path)
        except OSError as error:
            return self._keep(path, (error.strerror or type(error).__name__).lower())
        if len(data) > MAX_FILE_SIZE:
            return self._keep(path, f"is larger than {MAX_FILE_SIZE >> 20} MiB")
        # A file that may change again under the same signature is read again by the next load.
        settled = signature if path == STDIN or not is_unsettled(signature.mtime_ns, now) else None
        digest = blake2b(data, digest_size=16).digest()
        before = self._files.get(path)
        if before is not None and before.digest == digest:
            self._files[path] = before._replace(signature=settled)
            return set()
        source = self._decoder.read(path, data)
        claims = source.claims()
        kept = self._untold(before, source, claims) if before else _NONE
        return self._replace(path, _File(settled, source, claims, kept, digest))

    def _untold(self, before: _File, source: Source, claims: Mapping[ObjectId, object]) -> frozenset[ObjectId]:
        """The objects a file held that its new content may still mean, but cannot tell."""
        missing = [
            identity
            for identity in (*before.claims, *before.kept)
            if identity not in claims and self._holds(source.path, identity)
        ]
        if not missing or source.is_blind():
            return frozenset(missing)
        groups = self._registry.groups
        new, present = source.namesakes(before.source, groups), source.namesakes(None, groups)
        return frozenset(
            identity
            for identity in missing
            if any(_may_be(identity, key) for key in (present if identity in before.kept else new))
        )

    def _holds(self, path: str, identity: ObjectId) -> bool:
        located = self._objects.get(identity)
        return located is not None and located.origin.file == path

    def _lose(self, path: str) -> set[ObjectId]:
        """A file that was not found: it is gone, unless a path above it could not be looked at."""
        if any(above in self._scan_errors for above in (path, *map(str, PurePath(path).parents))):
            return self._keep(path, "")
        return self._replace(path, None)

    def _keep(self, path: str, reason: str) -> set[ObjectId]:
        """A file that cannot be read keeps what it held, and is tried again by every load."""
        before = self._files.get(path)
        if before is None:
            return self._replace(path, _File(None, Source(path, ()), {}, unreadable=reason))
        kept = frozenset(identity for identity in (*before.claims, *before.kept) if self._holds(path, identity))
        return self._replace(path, _File(None, before.source, {}, kept, unreadable=reason))

    def _replace(self, path: str, file: _File | None) -> set[ObjectId]:
        """Puts a file in the place of what was known of it; returns the objects this may concern."""
        before = self._files.pop(path, None)
        old = {*before.claims, *before.kept} if before else set()
        new = {*file.claims, *file.kept} if file else set()
        if file is not None:
            self._files[path] = file
            if path not in self._order:
                self._order[path] = self._place_of(path)
        for identity in old - new:
            self._holders[identity] = tuple(holder for holder in self._holders[identity] if holder != path)
        for identity in new - old:
            holders = (*self._holders.get(identity, ()), path)
            self._holders[identity] = tuple(sorted(holders, key=self._order.__getitem__)) if holders[1:] else holders
        self._note(path, file)
        return old | new

    def _place_of(self, path: str) -> tuple[int, tuple[str, ...]]:
        parts = PurePath(path).parts
        return next(index for index, root in enumerate(self.paths) if PurePath(path).is_relative_to(root)), parts

    def _note(self, path: str, file: _File | None) -> None:
        """Keeps the problems of a file."""
        self._problems.pop(path, None)
        for kind in [kind for kind, files in self._unknown.items() if files.pop(path, None) and not files]:
            del self._unknown[kind]
        if file is None:
            return
        problems = tuple(file.source.problems())
        if file.unreadable:
            problems = (FileProblem(code=UNREADABLE_FILE, file=path, line=0, message=file.unreadable),)
        if problems:
            self._problems[path] = problems
        for kind, first in file.source.unknown_kinds().items():
            self._unknown.setdefault(kind, {})[path] = first

    def _settle(self, touched: Iterable[ObjectId]) -> dict[ObjectId, Resource | None]:
        """Decides what is in force for the given objects; returns what changed."""
        changed: dict[ObjectId, Resource | None] = {}
        for identity in touched:
            before = self._objects.get(identity)
            after = self._decide(identity, before)
            if after is None:
                self._objects.pop(identity, None)
                self._numbers.pop(identity, None)
            else:
                self._objects[identity] = after
            old = before.resource if before else None
            new = after.resource if after else None
            if old is not new and old != new:
                changed[identity] = new
        return changed

    def _decide(self, identity: ObjectId, before: Located | None) -> Located | None:
        self._retained.discard(identity)
        self._refused.pop(identity, None)
        self._duplicates.pop(identity, None)
        places = self._places(identity)
        if not places:
            self._holders.pop(identity, None)
            return None
        self._note_duplicates(identity, places)
        for file, number, claim in places:
            if claim is not None and claim.resource is not None:
                self._numbers[identity] = number
                return Located(claim.resource, Origin(file, claim.line))
            if before is not None and (before.origin.file, self._numbers[identity]) == (file, number):
                break
        # Every definition in front of the last good version is broken, or it moved and broke on the way.
        if before is None:
            claims = (claim for _file, _number, claim in places if claim is not None)
            self._refused[identity] = next((claim.stand_in for claim in claims), None)
        else:
            self._retained.add(identity)
        return before

    def _places(self, identity: ObjectId) -> list[_Place]:
        places: list[_Place] = []
        for path in self._holders.get(identity, ()):
            file = self._files[path]
            claims: Sequence[Claim | None] = file.claims.get(identity) or (None,)
            if claims[0] is None:
                number = self._numbers.get(identity, 0) if self._holds(path, identity) else 0
                places.append(_Place(path, number, None))
            else:
                places.extend(_Place(path, number, claim) for number, claim in enumerate(claims))
        return places

    def _note_duplicates(self, identity: ObjectId, places: Sequence[_Place]) -> None:
        first, *others = places
        if not others:
            return
        where = str(Origin(first.file, first.claim.line)) if first.claim else first.file
        ref = ObjectRef(identity[0], *identity[1])
        self._duplicates[identity] = tuple(
            FileProblem(
                code=DUPLICATE,
                file=place.file,
                line=place.claim.line,
                object=ref,
                message=f"is ignored: {where} defines it first",
            )
            for place in others
            if place.claim is not None
        )

    def _all_problems(self) -> tuple[FileProblem, ...]:
        problems = [problem for listed in self._problems.values() for problem in listed]
        problems.extend(problem for listed in self._duplicates.values() for problem in listed)
        problems.extend(
            FileProblem(code=UNREADABLE_FILE, file=path, line=0, message=reason)
            for path, reason in self._scan_errors.items()
            if path not in self._problems
        )
        for (api_version, kind), files in self._unknown.items():
            path = min(files, key=self._order.__getitem__)
            count = sum(count for _, count in files.values())
            documents = "1 document is" if count == 1 else f"{count} documents are"
            message = f"kind {kind} of {api_version} is unknown; {documents} ignored"
            problems.append(FileProblem(code=UNKNOWN_KIND, file=path, line=files[path][0], message=message))
        last = (len(self.paths), ())
        return tuple(sorted(problems, key=lambda found: (self._order.get(found.file, last), found.line, found.code)))


def _content(path: str) -> bytes:
    """What is in a file, as far as it may be read; `Path` and a buffer would cost more than all else here."""
    parts, size = [], 0
    with FileIO(path) as file:
        while size <= MAX_FILE_SIZE and (part := file.read(_PIECE)):
            parts.append(part)
            size += len(part)
    return b"".join(parts)


def _may_be(identity: ObjectId, key: tuple[str, str]) -> bool:
    """Whether a document with that namespace and name may mean the object; it may leave out the default namespace."""
    return identity[1].name == key[1] and key[0] in {"", identity[1].namespace}


def _refs(identities: Iterable[ObjectId]) -> tuple[ObjectRef, ...]:
    return tuple(sorted(ObjectRef(kind, *key) for kind, key in identities))
