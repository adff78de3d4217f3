from __future__ import annotations

from typing import Any

import pytest

from meshgw.api.fields import null_fields, unknown_fields, without_nulls
from meshgw.api.gateway import Gateway
from meshgw.api.http import HTTPRoute


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ()),
        ({"rules": [{"matches": [{"path": {"value": "/"}}]}]}, ()),
        ({"host": "a"}, ("spec.host",)),
        (
            {"rules": [{}, {"matches": [{"header": [], "path": {"valu": 1}}]}]},
            ("spec.rules[1].matches[0].header", "spec.rules[1].matches[0].path.valu"),
        ),
        (
            {"rules": [{"filters": [{"requestMirror": {"backendRef": {"x": 1}}}]}]},
            ("spec.rules[0].filters[0].requestMirror.backendRef.x",),
        ),
    ],
)
def test_unknown_fields_are_found_with_their_paths(spec: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert unknown_fields({"spec": spec}, HTTPRoute) == expected


def test_metadata_status_and_free_mappings_are_not_looked_into() -> None:
    document = {
        "apiVersion": "x",
        "kind": "y",
        "metadata": {"managedFields": []},
        "status": {"x": 1},
        "extra": 1,
        "spec": {"infrastructure": {"labels": {"anything": "goes"}}},
    }
    assert unknown_fields(document, Gateway) == ("extra",)


def test_nulls_are_found_and_removed() -> None:
    document = {"a": None, "b": [{"c": None, "d": 1}, None], "e": {"f": None}}
    assert null_fields(document, "spec") == ("spec.a", "spec.b[0].c", "spec.b[1]", "spec.e.f")
    assert without_nulls(document) == {"b": [{"d": 1}, None], "e": {}}
