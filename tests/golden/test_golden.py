"""Every golden folder: the four outputs, and the same result from shuffled documents and from step-by-step commits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.case import CASES, OUTPUTS, ROOT, outputs


@pytest.mark.parametrize("case", CASES, ids=lambda path: str(path.relative_to(ROOT)))
def test_outputs_are_the_golden_ones(case: Path, update: bool) -> None:
    actual = outputs((case / "in.yaml").read_text())
    if update:
        for name, text in actual.items():
            (case / f"{name}.yaml").write_text(text)
    for name in OUTPUTS:
        assert actual[name] == (case / f"{name}.yaml").read_text(), f"{case.name}/{name}.yaml differs"


def test_there_are_cases_enough() -> None:
    assert len(CASES) >= 120
