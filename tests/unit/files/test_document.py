from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshgw.files import document
from meshgw.files.document import Chunk, DocumentError, parse_json, parse_yaml, split


def broken(text: str) -> tuple[int, str]:
    with pytest.raises(DocumentError) as caught:
        parse_yaml(text)
    return caught.value.line, caught.value.message


def test_documents_are_split_at_their_markers() -> None:
    text = "a: 1\n---\nb: |\n  --- x\n---# no\n--- {c: 1}\n...\n--- \n%YAML 1.1\n---\nd: 1\n---"
    assert list(split(text)) == [
        Chunk(1, "a: 1\n"),
        Chunk(3, "b: |\n  --- x\n---# no\n"),
        Chunk(6, " {c: 1}\n"),
        Chunk(9, "%YAML 1.1\n"),
        Chunk(11, "d: 1\n"),
    ]
    assert list(split("")) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: b", "b"),
        ("a: yes", True),
        ("a: Off", False),
        ("a: 'yes'", "yes"),
        ("a:", None),
        ("a: ~", None),
        ("a: 12", 12),
        ("a: +1_000", 1000),
        ("a: -7", -7),
        ("a: 0", 0),
        ("a: 010", 8),
        ("a: 0o10", 8),
        ("a: 0x1F", 31),
        ("a: 0b11", 3),
        ("a: 1.5", 1.5),
        ("a: .5", 0.5),
        ("a: 1e3", 1000.0),
        ("a: .inf", float("inf")),
        ("a: -.INF", float("-inf")),
        ("a: 1.2.3.4", "1.2.3.4"),
        ("a: 1:30", "1:30"),
        ("a: 2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("a: =", "="),
        ("a: 0b", "0b"),
        ("a: 0b_", "0b_"),
        ("a: " + "9" * 100, "9" * 100),
        ("a: !!str 5", "5"),
        ("a: !!int '5'", 5),
        ("a: ! 5", "5"),
        ("a: |\n  x\n  y\n", "x\ny\n"),
        ("a: [1, b, {c: d}]", [1, "b", {"c": "d"}]),
        ("a: !!map {b: 1}", {"b": 1}),
        ("a: !!seq [b]", ["b"]),
        ("x: &x {y: 1}\na: *x", {"y": 1}),
        ("x: &x {y: 1, z: 1}\na: {<<: *x, z: 2}", {"y": 1, "z": 2}),
        ("x: &x {y: 1}\na: {z: 2, <<: [*x, {y: 3, w: 4}]}", {"y": 1, "z": 2, "w": 4}),
        ("a: {'<<': 5, b: 6}", {"<<": 5, "b": 6}),
        ("x: &x 5\na: *x", 5),
        ("a: {b: {}, c: []}", {"b": {}, "c": []}),
    ],
)
def test_values_are_read_as_kubernetes_reads_them(text: str, value: object) -> None:
    found = parse_yaml(text)["a"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_text() -> None:
    assert parse_yaml("1: a\non: b\n1.5: c\nd: e\n'1e': f") == {"1": "a", "true": "b", "1.5": "c", "d": "e", "1e": "f"}


@pytest.mark.parametrize("text", ["", "\n", "# only\n  # comments", "%YAML 1.1\n# x\n", "null"])
def test_an_empty_document_has_no_value(text: str) -> None:
    assert parse_yaml(text) is None


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: b\nc: d: e", 1, "mapping values are not allowed in this context"),
        ("a:\n\tb: c", 1, "found character that cannot start any token"),
        ("a: [1\n", 1, "did not find expected ',' or ']'"),
        ("a: 1\nb: 2\na: 3", 2, "key `a` is repeated"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n  <<: *x\n", 3, "key `<<` is repeated"),
        ("a: *b", 0, "an alias has no anchor before it"),
        ("a: &a [*a]", 0, "an alias has no anchor before it"),
        ("*a", 0, "an alias has no anchor before it"),
        ("a: &a b\n*a : c", 1, "an alias cannot be a key"),
        ("a: !foo b", 0, "a tag is not supported"),
        ("a: !foo {}", 0, "a tag is not supported"),
        ("a: !!binary aGk=", 0, "a tag is not supported"),
        ("a: !!map []", 0, "a tag is not supported"),
        ("? [a]\n: b", 0, "a key must be text"),
        ("~: b", 0, "a key must not be null"),
        ("a: {<<: 5}", 0, "only mappings can be merged"),
        ("a\nb\x07", 1, "control characters are not allowed"),
        ("a: 1\r--- b: 1", 1, "a document marker is missing before this line"),
    ],
)
def test_a_broken_document_has_a_line_and_a_reason(text: str, line: int, message: str) -> None:
    assert broken(text) == (line, message)


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "".join(" " * n + "-\n" for n in range(500))])
def test_depth_is_bounded(text: str) -> None:
    assert broken(text)[1] == "is nested more than 100 levels deep"


def bomb(template: str) -> str:
    names = [f"n{number}" for number in range(30)]
    lines = ["n0: &n0 {x: 1}"]
    for before, name in itertools.pairwise(names):
        lines.append(f"{name}: &{name} " + template.format(",".join([f"*{before}"] * 10)))
    return "\n".join(lines)


@pytest.mark.parametrize("template", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_are_bounded(template: str) -> None:
    assert broken(bomb(template))[1] == "its aliases expand to too much"


def test_large_texts_behind_aliases_are_bounded() -> None:
    text = f"a: &a {'x' * 1_000_000}\nb: [{','.join(['*a'] * 20)}]"
    assert broken(text)[1] == "its aliases expand to too much"


def test_no_message_quotes_a_value() -> None:
    for text in ("a: hunter2: x", "a: 'hunter2", "a: !hunter2 b", "a: *hunter2", "hunter2\x07"):
        assert "hunter2" not in broken(text)[1]


def test_lines_of_fields_are_noted() -> None:
    lines: dict[str, int] = {}
    parse_yaml("a:\n  b:\n  - c: 1\n    d: 2\n  - [x,\n     y]\ne: 3\n", lines)
    assert lines == {
        "": 0, "a": 0, "a.b": 1, "a.b[0]": 2, "a.b[0].c": 2, "a.b[0].d": 3,
        "a.b[1]": 4, "a.b[1][0]": 4, "a.b[1][1]": 5, "e": 6,
    }  # fmt: skip


def test_json_has_a_line_and_a_reason() -> None:
    assert parse_json('{"a": [1, 2]}') == {"a": [1, 2]}
    for text, line in (('{\n"a": 1,\n"b" 2}', 2), ('{\n"a": 1', 1), ("[" * 100_000, 0)):
        with pytest.raises(DocumentError) as caught:
            parse_json(text)
        assert caught.value.line == line
        assert "byte" not in caught.value.message


BARE_EXPONENT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+")
"""A number to Kubernetes, text to the library that writes here: it does not quote it."""
TEXTS = st.text().filter(lambda text: not BARE_EXPONENT.fullmatch(text))
SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS.filter(bool), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES.map(lambda value: {"a": value}))
def test_what_is_written_is_read_back(value: Any) -> None:
    assert parse_yaml(yaml.safe_dump(value)) == value


def test_without_libyaml_the_same_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: &a [1, {b: c}]\nd: *a\n"
    expected = parse_yaml(text)
    monkeypatch.setattr(document, "_LOADER", yaml.SafeLoader)
    assert parse_yaml(text) == expected
    assert broken("a: [1\n")[0] == 1
    assert broken("a\nb\x07")[0] == 1
    assert broken("a: *b") == (0, "an alias has no anchor before it")
