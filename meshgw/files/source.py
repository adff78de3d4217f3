"""The objects of one file: documents decoded once per text, with the lines they stand on."""

import re
from codecs import BOM_UTF8
from collections.abc import Container, Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

from msgspec import Struct

from meshgw.api.decode import Decoded, decode
from meshgw.api.meta import Key, ObjectRef, Resource
from meshgw.api.registry import REGISTRY, Registry
from meshgw.files.document import Chunk, DocumentError, parse_json, parse_yaml, split
from meshgw.files.guess import guess_policies

BROKEN_YAML: Final = "MG9101"
WRONG_SHAPE: Final = "MG9102"
DUPLICATE: Final = "MG9103"
UNKNOWN_KIND: Final = "MG9104"
UNKNOWN_FIELD: Final = "MG9105"
UNREADABLE_FILE: Final = "MG9106"

ObjectId = tuple[str, Key]
"""Kind, and namespace and name."""

_LAST_PART: Final = re.compile(r"(?:\.?[^.\[\]]+|\[[^\]]*\])\Z")
_MAX_NAMED_FIELDS: Final = 10


class FileProblem(Struct, frozen=True, kw_only=True):
    """Something wrong in a file: a finding code, where, and what.

    ``line`` counts from 1, and is 0 when the whole file is meant; ``object`` and ``field`` may be unknown.
    """

    code: str
    file: str
    line: int
    message: str
    object: ObjectRef | None = None
    field: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        parts = (where, self.code, str(self.object or ""), self.field, self.message)
        return ": ".join(part for part in parts if part)


class Claim(NamedTuple):
    """A place that defines an object; ``resource`` is None when what stands there is of the wrong shape.

    ``stand_in`` may then stand for it.
    """

    line: int
    resource: Resource | None
    stand_in: Resource | None = None


class Item(NamedTuple):
    """One decoded object of a document; lines count from 0 within the document's text."""

    decoded: Decoded
    line: int
    field_line: int

    @property
    def id(self) -> ObjectId | None:
        """The object's identity, if its kind is known and the document names it."""
        ref = self.decoded.ref
        return (ref.kind, ref.key) if self.decoded.kind is not None and ref.name else None


class Document:
    """What one text holds: items, or the error that keeps it from being read and what may be in it all the same."""

    __slots__ = ("__weakref__", "error", "items")

    def __init__(self, items: tuple[Item, ...], error: DocumentError | None = None) -> None:
        self.items = items
        self.error = error


class Source(NamedTuple):
    """All documents of a file, each with the line it starts on."""

    path: str
    documents: tuple[tuple[int, Document], ...]

    def claims(self) -> dict[ObjectId, list[Claim]]:
        """The objects defined here, with every place that defines them."""
        found: dict[ObjectId, list[Claim]] = {}
        for start, document in self.documents:
            for item in document.items:
                identity = item.id
                if identity is not None:
                    found.setdefault(identity, []).append(
                        Claim(start + item.line, item.decoded.object, item.decoded.stand_in)
                    )
        return found

    def problems(self) -> Iterator[FileProblem]:
        """What is wrong here, apart from unknown kinds and duplicates, which concern all files."""
        for start, document in self.documents:
            if document.error is not None:
                line = start + document.error.line
                yield FileProblem(code=BROKEN_YAML, file=self.path, line=line, message=document.error.message)
            for item in document.items:
                yield from self._item_problems(start, item)

    def _item_problems(self, start: int, item: Item) -> Iterator[FileProblem]:
        decoded = item.decoded
        line = start + item.field_line
        for problem in decoded.problems:
            ref = problem.object if problem.object.kind else None
            yield FileProblem(
                code=WRONG_SHAPE, file=self.path, line=line, object=ref, field=problem.field, message=problem.message
            )
        if decoded.unknown_fields:
            named = ", ".join(decoded.unknown_fields[:_MAX_NAMED_FIELDS])
            more = len(decoded.unknown_fields) - _MAX_NAMED_FIELDS
            message = f"unknown: {named}" + (f" and {more} more" if more > 0 else "")
            field = decoded.unknown_fields[0]
            yield FileProblem(
                code=UNKNOWN_FIELD, file=self.path, line=line, object=decoded.ref, field=field, message=message
            )

    def unknown_kinds(self) -> dict[tuple[str, str], tuple[int, int]]:
        """The kinds here that nothing reads: by apiVersion and kind the first line and the count."""
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for start, document in self.documents:
            for item in document.items:
                if is_unknown_kind(item.decoded):
                    name = (item.decoded.api_version, item.decoded.ref.kind)
                    line, count = found.get(name, (start + item.line, 0))
                    found[name] = (line, count + 1)
        return found

    def is_blind(self) -> bool:
        """Whether a document here cannot say which object it is."""
        return any(
            document.error is not None or any(item.decoded.problems and item.id is None for item in document.items)
            for _, document in self.documents
        )

    def namesakes(self, before: "Source | None", groups: Container[str]) -> set[Key]:
        """Names in documents that are new here and whose kind looks mistyped: unknown, but of one of these groups."""
        old = {id(document) for _, document in before.documents} if before else set()
        return {
            item.decoded.key
            for _, document in self.documents
            if id(document) not in old
            for item in document.items
            if is_unknown_kind(item.decoded) and item.decoded.api_version.rpartition("/")[0] in groups
        }


def is_unknown_kind(decoded: Decoded) -> bool:
    """Whether a document is well formed but of a kind that nothing reads."""
    return decoded.kind is None and not decoded.problems


class Decoder:
    """Decodes texts, each only once as long as some file still holds it; ``decoded`` counts the documents."""

    def __init__(self, registry: Registry = REGISTRY) -> None:
        self.decoded = 0
        self._registry = registry
        self._documents: WeakValueDictionary[bytes, Document] = WeakValueDictionary()

    def read(self, path: str, data: bytes) -> Source:
        """The documents of a file's content."""
        try:
            text = data.removeprefix(BOM_UTF8).decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start)
            return Source(path, ((1, Document((), DocumentError(line, "is not UTF-8 text"))),))
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if path.endswith(".json"):
            return Source(path, ((1, self._document(text, json=True)),))
        return Source(path, tuple((chunk.line, self._document(chunk.text)) for chunk in _chunks(text)))

    def _document(self, text: str, *, json: bool = False) -> Document:
        digest = blake2b(text.encode(), digest_size=16, person=b"json" if json else b"yaml").digest()
        document = self._documents.get(digest)
        if document is None:
            document = _read(text, self._registry, json=json)
            self.decoded += 1
            self._documents[digest] = document
        return document


def _chunks(text: str) -> Iterator[Chunk]:
    return (chunk for chunk in split(text) if not chunk.text.isspace())


def _read(text: str, registry: Registry, *, json: bool) -> Document:
    try:
        value = parse_json(text) if json else parse_yaml(text)
    except DocumentError as error:
        guesses = guess_policies(text, registry)
        return Document(tuple(Item(guess, error.line, error.line) for guess in guesses), error)
    if value is None:
        return Document(())
    found = [(path, decode(_document(item), registry)) for path, item in _objects(value, "", registry)]
    plain = len(found) == 1 and not found[0][0] and found[0][1].object is not None and not found[0][1].unknown_fields
    lines = {"": _first_line(text)} if plain else _lines(text)
    return Document(tuple(_item(path, decoded, lines) for path, decoded in found))


def _objects(value: Any, path: str, registry: Registry) -> Iterator[tuple[str, Any]]:
    """The objects in a value, with their paths: itself, or the items of a list."""
    if isinstance(value, dict) and isinstance(value.get("items"), list) and _is_list(value.get("kind"), registry):
        for index, item in enumerate(value["items"]):
            yield from _objects(item, f"{path}.items[{index}]".lstrip("."), registry)
    else:
        yield path, value


def _document(value: Any) -> Any:
    """The value, unless it is text: as a document of its own that would be read as JSON."""
    return () if isinstance(value, str | bytes) else value


def _is_list(kind: object, registry: Registry) -> bool:
    return isinstance(kind, str) and (kind == "List" or registry.by_name(kind.removesuffix("List")) is not None)


def _lines(text: str) -> Mapping[str, int]:
    """The line of every field; JSON is read as YAML for this, and where that fails everything is on the first line."""
    lines: dict[str, int] = {}
    try:
        parse_yaml(text, lines)
    except DocumentError:
        lines.setdefault("", 0)
    return lines


def _first_line(text: str) -> int:
    """The line of the first content."""
    for number, line in enumerate(text.split("\n")):
        content = line.strip()
        if content and not content.startswith(("#", "%")):
            return number
    return 0


def _item(path: str, decoded: Decoded, lines: Mapping[str, int]) -> Item:
    start = _line_of(path, lines)
    fields = [problem.field for problem in decoded.problems[:1]] or list(decoded.unknown_fields[:1])
    field_line = _line_of(f"{path}.{fields[0]}".strip("."), lines) if fields else start
    return Item(decoded, start, field_line)


def _line_of(path: str, lines: Mapping[str, int]) -> int:
    """The line of a field, or of the nearest one around it."""
    while path not in lines and path:
        path = _LAST_PART.sub("", path) if _LAST_PART.search(path) else ""
    return lines.get(path, 0)
