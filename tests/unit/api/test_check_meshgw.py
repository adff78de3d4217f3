"""Rules for GatewayParameters; `tests/cluster` holds them against those of a real API server."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from meshgw.api.decode import decode
from tests.unit.api.parameter_specs import BROKEN, GOOD, UNSEEN


def problems(spec: str) -> list[tuple[str, str]]:
    document: dict[str, Any] = {
        "apiVersion": "meshgw.dev/v1alpha1",
        "kind": "GatewayParameters",
        "metadata": {"name": "own"},
        "spec": yaml.safe_load(spec),
    }
    return [(problem.field, problem.message) for problem in decode(document).problems]


@pytest.mark.parametrize("spec", GOOD)
def test_good_parameters_have_no_problems(spec: str) -> None:
    assert problems(spec) == []


@pytest.mark.parametrize(("spec", "field", "message"), [*BROKEN, *UNSEEN])
def test_each_rule_names_its_field(spec: str, field: str, message: str) -> None:
    found = dict(problems(spec))
    assert set(found) == {field}
    assert message in found[field]
