"""Names of what is deployed."""

from __future__ import annotations

import re

import pytest

from meshgw.ir.proxy import label_value, proxy_name

SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LONG = "a" * 60


@pytest.mark.parametrize(("gateway", "class_name"), [("gw", "meshgw"), ("g" * 31, "c" * 31)])
def test_a_name_that_fits_is_gateway_and_class(gateway: str, class_name: str) -> None:
    assert proxy_name(gateway, class_name) == f"{gateway}-{class_name}"


@pytest.mark.parametrize(
    ("gateway", "class_name"),
    [
        ("a.b", "c"),
        ("a", "b.c"),
        ("1a", "b"),
        (LONG, "class"),
        ("a-" * 30, "class"),
        ("a.", "b"),
        ("x" * 253, "y" * 253),
    ],
)
def test_any_other_is_made_to_fit_with_a_hash(gateway: str, class_name: str) -> None:
    name = proxy_name(gateway, class_name)
    assert SERVICE_NAME.fullmatch(name)
    assert len(name) <= 63
    assert re.search(r"-[0-9a-f]{8}$", name)


def test_names_that_were_made_to_fit_stay_apart() -> None:
    pairs = [
        ("a.b", "c"),
        ("a", "b.c"),
        ("a-b", "c"),
        (LONG + "1", "c" * 9),
        (LONG + "2", "c" * 9),
        (LONG, "1" + "c" * 9),
    ]
    assert len({proxy_name(*pair) for pair in pairs}) == len(pairs)


def test_a_label_holds_what_fits_and_a_hash_of_the_rest() -> None:
    assert label_value("a.b") == "a.b"
    cut = {label_value("a" * 54 + ending) for ending in ("." * 20, "b" * 20)}
    assert len(cut) == 2
    assert all(len(value) <= 63 and re.fullmatch(r"a+b*-[0-9a-f]{8}", value) for value in cut)
