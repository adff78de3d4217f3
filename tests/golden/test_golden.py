"""Every golden folder: its outputs, and the same rows by whatever way the facts arrive."""

from __future__ import annotations

import random
import re
from functools import cached_property
from pathlib import Path

import pytest

from meshgw.engine import Graph
from meshgw.pipeline import build_graph
from tests.golden.case import CASES, ROOT, Input, commit, commit_all, output_names, outputs, read_case, state

_MARKER = re.compile(r"^---\n", re.MULTILINE)


class Case:
    """A case that is read and committed once for all tests of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = (path / "in.yaml").read_text()

    @cached_property
    def input(self) -> Input:
        return read_case(self.text)

    @cached_property
    def graph(self) -> Graph:
        return commit_all(self.input)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module", params=CASES, ids=_name)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_there_are_cases_enough() -> None:
    assert len(CASES) >= 140


def test_outputs_are_the_golden_ones(case: Case, *, update: bool) -> None:
    actual = outputs(case.input, case.graph)
    if update:
        for name, text in actual.items():
            (case.path / f"{name}.yaml").write_text(text)
    assert {path.stem for path in case.path.glob("*.yaml")} == {"in", *actual}
    for name in output_names(case.input):
        assert actual[name] == (case.path / f"{name}.yaml").read_text(), f"{_name(case.path)}/{name}.yaml differs"


def test_the_way_of_the_facts_does_not_matter(case: Case) -> None:
    expected, order = state(case.graph), random.Random(_name(case.path))
    shuffled = case.input if case.input.header.ordered else read_case(_shuffled(case.text, order))
    assert state(_commit_one_by_one(shuffled, order)) == expected


@pytest.mark.parametrize("path", CASES[::8], ids=_name)
def test_the_incident_switch_computes_the_same(path: Path) -> None:
    case = Case(path)
    assert state(commit_all(case.input, incremental=False)) == state(case.graph)


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


def _shuffled(text: str, order: random.Random) -> str:
    head, *documents = _MARKER.split(text)
    order.shuffle(documents)
    return "---\n".join((head, *(document if document.endswith("\n") else f"{document}\n" for document in documents)))
