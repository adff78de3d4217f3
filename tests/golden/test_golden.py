"""Every golden folder: the four outputs, and the same rows by whatever way the facts arrive."""

from __future__ import annotations

import functools
import random
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshgw.emit.dump import MESSAGES
from meshgw.emit.resource import Resource
from meshgw.emit.tables import RESOURCES
from meshgw.engine import Graph
from meshgw.pipeline import build_graph
from meshgw.protos import MessageToDict
from tests.decoder import decode
from tests.golden.case import CASES, OUTPUTS, ROOT, Input, commit, commit_all, outputs, read_case, state

every_case = pytest.mark.parametrize("case", CASES, ids=lambda path: str(path.relative_to(ROOT)))

_MARKER = re.compile(r"^---\n", re.MULTILINE)


@every_case
def test_outputs_are_the_golden_ones(case: Path, update: bool) -> None:
    actual = outputs((case / "in.yaml").read_text())
    if update:
        for name, text in actual.items():
            (case / f"{name}.yaml").write_text(text)
    for name in OUTPUTS:
        assert actual[name] == (case / f"{name}.yaml").read_text(), f"{case.name}/{name}.yaml differs"


@every_case
def test_the_way_of_the_facts_does_not_matter(case: Path) -> None:
    found = _read(case)
    expected = state(commit_all(found))
    assert state(commit_all(found, incremental=False)) == expected
    assert state(_commit_one_by_one(found, random.Random(case.name))) == expected
    if not found.header.ordered:
        assert state(commit_all(read_case(_shuffled(case, random.Random(case.name))))) == expected


@every_case
def test_another_codec_reads_the_same_from_the_bytes(case: Path) -> None:
    for _key, resource in commit_all(_read(case)).all(RESOURCES):
        assert _theirs(resource) == _ours(resource), resource


@functools.cache
def _theirs(resource: Resource) -> Any:
    """Kept, as many cases have the same listener."""
    return msgspec.json.decode(msgspec.json.encode(decode(resource)))


def _ours(resource: Resource) -> Any:
    return msgspec.to_builtins(MessageToDict(MESSAGES[resource.type_url].FromString(resource.body)))


def test_there_are_cases_enough() -> None:
    assert len(CASES) >= 140


def _read(case: Path) -> Input:
    return read_case((case / "in.yaml").read_text())


def _commit_one_by_one(case: Input, order: random.Random) -> Graph:
    graph = build_graph()
    batches = [
        {table: {key: row}}
        for facts in (case.circumstances, case.facts)
        for table in facts
        for key, row in facts[table].items()
    ]
    order.shuffle(batches)
    for batch in batches:
        commit(graph, batch)
    return graph


def _shuffled(case: Path, order: random.Random) -> str:
    head, *documents = _MARKER.split((case / "in.yaml").read_text())
    order.shuffle(documents)
    return "---\n".join((head, *(document if document.endswith("\n") else f"{document}\n" for document in documents)))
