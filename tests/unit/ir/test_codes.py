"""The table of finding codes is what people are referred to: whole, distinct, and all there is."""

from __future__ import annotations

import re
from pathlib import Path

import meshgw
from meshgw.ir.codes import CODES

FAMILIES = {"1", "2", "3", "4", "5", "6", "7", "9"}


def test_every_code_has_its_form_and_all_its_words() -> None:
    for code, row in CODES.items():
        assert re.fullmatch(r"MG\d{4}", code)
        assert code == row.code
        assert code[2] in FAMILIES
        assert all(text.strip() == text and text for text in (row.title, row.cause, row.remedy))
        assert row.cause.endswith(".")
        assert row.remedy.endswith(".")
        assert not row.title.endswith(".")


def test_codes_are_in_order_and_titles_distinct() -> None:
    assert list(CODES) == sorted(CODES)
    assert len({row.title for row in CODES.values()}) == len(CODES)


def test_every_code_is_used_and_no_other_one_is() -> None:
    root = Path(meshgw.__file__).parent
    used = {
        code
        for path in root.rglob("*.py")
        if path.name != "codes.py"
        for code in re.findall(r"\bMG\d{4}\b", re.sub(r"help MG\d{4}", "", path.read_text()))
    }
    assert used - CODES.keys() == set()
    assert CODES.keys() - used == set()
