"""One text of YAML or JSON to plain values, bounded in depth and size.

Built on the events of PyYAML, because its composer recurses in C (a deeply nested file would end the
process) and its constructor expands merge keys without a bound. Scalars are read as Kubernetes reads
them: YAML 1.1 without sexagesimal numbers and without dates.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
import yaml
from yaml import events

from meshgw.api.depth import MAX_DEPTH, is_deep

MAX_ALIAS_SIZE: Final = 16 * 1024 * 1024
"""Characters that the aliases of one document may stand for, with 8 for each node."""

_NODE_SIZE: Final = 8
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MARKER: Final = re.compile(r"^(?:---|\.\.\.)(?:[ \t]*\n|(?=[ \t])|\Z)", re.MULTILINE)
_EMPTY: Final = re.compile(r"(?:(?:[ \t]*(?:#.*)?|%.*)\n)*[ \t]*(?:#.*)?\Z")
_WORDS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **{word: True for base in ("true", "yes", "on") for word in (base, base.title(), base.upper())},
    **{word: False for base in ("false", "no", "off") for word in (base, base.title(), base.upper())},
}
_NUMBER_START: Final = frozenset("0123456789+-.")
_INT: Final = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|[1-9][0-9_]*|0)\Z")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL_FLOAT: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")
_MAX_DIGITS: Final = 64
_TAG: Final = "tag:yaml.org,2002:"
_JSON_BYTE: Final = re.compile(r" \(byte (\d+)\)\Z")


class DocumentError(Exception):
    """A text that cannot be read; ``line`` counts from 0 within it. The message quotes no values."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class Chunk(NamedTuple):
    """The text of one document; ``line`` is that of its first character, counted from 1."""

    line: int
    text: str


def split(text: str) -> Iterator[Chunk]:
    """The documents of a YAML text, by their markers alone, so that a broken one does not hide the others."""
    line, start = 1, 0
    for marker in _MARKER.finditer(text):
        if marker.start() > start:
            yield Chunk(line, text[start : marker.start()])
        line += text.count("\n", start, marker.end())
        start = marker.end()
    if start < len(text):
        yield Chunk(line, text[start:])


def parse_json(text: str) -> Any:
    """The value of a JSON text."""
    if is_deep(text.encode()):
        raise DocumentError(0, f"is nested more than {MAX_DEPTH} levels deep")
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        message = str(error)
        at = _JSON_BYTE.search(message)
        line = text.encode()[: int(at[1])].count(b"\n") if at else text.count("\n")
        raise DocumentError(line, _JSON_BYTE.sub("", message)) from None


def parse_yaml(text: str, lines: dict[str, int] | None = None) -> Any:
    """The value of the one document in a YAML text, None when it is empty.

    ``lines`` receives the line of every field path, counted from 0 within the text.
    """
    if _EMPTY.match(text):
        return None
    builder = _Builder(lines)
    try:
        loader = _LOADER(text)
        try:
            while not builder.done:
                builder.take(loader.get_event())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(mark.line if mark else 0, error.problem or "is not YAML") from None
    except yaml.reader.ReaderError as error:
        raise DocumentError(text.count("\n", 0, error.position), str(error.reason)) from None
    return builder.value


class _Frame:
    """A mapping or list being filled."""

    __slots__ = ("anchor", "key", "merged", "merging", "path", "size", "value")

    def __init__(self, value: dict[str, Any] | list[Any], anchor: str | None, path: str) -> None:
        self.value = value
        self.anchor = anchor
        self.path = path
        self.key: str | None = None
        self.merging = False
        self.merged: list[dict[str, Any]] = []
        self.size = _NODE_SIZE


_MERGE: Final = "<<"


class _Builder:
    """Takes the events of one document and builds its value."""

    def __init__(self, lines: dict[str, int] | None) -> None:
        self.value: Any = None
        self.done = False
        self._lines = lines
        self._frames: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._aliased = 0
        self._documents = 0

    def take(self, event: Any) -> None:
        kind = event.__class__
        if kind is events.ScalarEvent:
            self._scalar(event)
        elif kind is events.MappingStartEvent:
            self._open({}, event, "map")
        elif kind is events.SequenceStartEvent:
            self._open([], event, "seq")
        elif kind is events.MappingEndEvent or kind is events.SequenceEndEvent:
            self._close(event)
        elif kind is events.AliasEvent:
            self._alias(event)
        elif kind is events.DocumentStartEvent:
            self._documents += 1
            if self._documents > 1:
                raise DocumentError(event.start_mark.line, "a document marker is missing before this line")
        elif kind is events.StreamEndEvent:
            self.done = True

    def _scalar(self, event: Any) -> None:
        frame = self._frames[-1] if self._frames else None
        value = _scalar(event)
        if frame is not None and frame.key is None and frame.value.__class__ is dict:
            self._key(frame, value, event)
            return
        size = _NODE_SIZE + len(event.value)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, size)
        self._put(value, size, event)

    def _key(self, frame: _Frame, value: Any, event: Any) -> None:
        if value is None:
            raise DocumentError(event.start_mark.line, "a key must not be null")
        if isinstance(value, bool):
            key = "true" if value else "false"
        elif isinstance(value, int):
            key = str(value)
        else:
            key = event.value
        frame.merging = key == _MERGE and bool(event.implicit[0])
        if frame.merged if frame.merging else key in frame.value:
            raise DocumentError(event.start_mark.line, f"key `{key}` is repeated")
        frame.key = key
        if self._lines is not None:
            self._lines[f"{frame.path}.{key}" if frame.path else key] = event.start_mark.line

    def _open(self, value: dict[str, Any] | list[Any], event: Any, tag: str) -> None:
        if event.tag not in {None, "!", _TAG + tag}:
            raise DocumentError(event.start_mark.line, "a tag is not supported")
        if len(self._frames) >= MAX_DEPTH:
            raise DocumentError(event.start_mark.line, f"is nested more than {MAX_DEPTH} levels deep")
        path = ""
        if self._frames:
            frame = self._frames[-1]
            if frame.value.__class__ is dict and frame.key is None:
                raise DocumentError(event.start_mark.line, "a key must be text")
            if self._lines is not None:
                path = self._child(frame)
        self._frames.append(_Frame(value, event.anchor, path))
        if self._lines is not None:
            self._lines.setdefault(path, event.start_mark.line)

    def _close(self, event: Any) -> None:
        frame = self._frames.pop()
        value = frame.value
        if frame.merged and isinstance(value, dict):
            for merged in frame.merged:
                for key, item in merged.items():
                    value.setdefault(key, item)
        if frame.anchor is not None:
            self._anchors[frame.anchor] = (value, frame.size)
        self._put(value, frame.size, event)

    def _alias(self, event: Any) -> None:
        found = self._anchors.get(event.anchor)
        if found is None:
            raise DocumentError(event.start_mark.line, "an alias has no anchor before it")
        value, size = found
        self._aliased += size
        if self._aliased > MAX_ALIAS_SIZE:
            raise DocumentError(event.start_mark.line, "its aliases expand to too much")
        frame = self._frames[-1]
        if frame.value.__class__ is dict and frame.key is None:
            raise DocumentError(event.start_mark.line, "an alias cannot be a key")
        self._put(value, size, event)

    def _put(self, value: Any, size: int, event: Any) -> None:
        if not self._frames:
            self.value = value
            return
        frame = self._frames[-1]
        frame.size += size
        container = frame.value
        if isinstance(container, list):
            if self._lines is not None:
                self._lines.setdefault(self._child(frame), event.start_mark.line)
            container.append(value)
            return
        key, frame.key = frame.key, None
        if frame.merging:
            frame.merging = False
            sources = value if isinstance(value, list) else [value]
            if not all(isinstance(source, dict) for source in sources):
                raise DocumentError(event.start_mark.line, "only mappings can be merged")
            frame.merged.extend(sources)
        elif key is not None:
            container[key] = value

    @staticmethod
    def _child(frame: _Frame) -> str:
        if isinstance(frame.value, list):
            return f"{frame.path}[{len(frame.value)}]"
        return f"{frame.path}.{frame.key}" if frame.path else f"{frame.key}"


def _scalar(event: Any) -> Any:
    text: str = event.value
    tag: str | None = event.tag
    if tag is None:
        return _plain(text) if event.implicit[0] else text
    if tag in {"!", _TAG + "str"}:
        return text
    if tag.startswith(_TAG) and tag.removeprefix(_TAG) in {"null", "bool", "int", "float"}:
        return _plain(text)
    raise DocumentError(event.start_mark.line, "a tag is not supported")


def _plain(text: str) -> Any:
    """The value of a scalar without quotes."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_START or len(text) > _MAX_DIGITS:
        return text
    if _INT.match(text):
        return _integer(text)
    if _FLOAT.match(text):
        return float(text.replace("_", ""))
    return float(text.replace(".", "", 1)) if _SPECIAL_FLOAT.match(text) else text


def _integer(text: str) -> Any:
    digits = text.replace("_", "")
    unsigned = digits.lstrip("+-")
    # YAML 1.1 writes octal numbers with a leading zero, which Python does not read.
    if len(unsigned) > 1 and unsigned.startswith("0") and unsigned.isdigit():
        digits = digits.replace("0", "0o", 1)
    try:
        return int(digits, 0)
    except ValueError:
        return text
