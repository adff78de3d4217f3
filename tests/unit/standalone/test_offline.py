"""Files translated once, without serving them."""

from __future__ import annotations

from pathlib import Path

from meshgw.api.meta import Key
from meshgw.standalone.offline import evaluate

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: %s}
spec: {gatewayClassName: %s, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
"""


def test_accepted_gateways_have_their_resources_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GATEWAY % ("b", "meshgw") + GATEWAY % ("a", "meshgw") + GATEWAY % ("c", "absent"))
    found = evaluate([str(tmp_path)])
    assert found.gateways == (Key("default", "a"), Key("default", "b"))
    resources = found.resources(Key("default", "a"))
    names = [(resource.type_url, resource.name) for resource in resources]
    assert names == sorted(names)
    assert [name for _type, name in names] == ["tcp/80", "http/80"]
    assert found.resources(Key("default", "c")) == []
    assert found.problems == ()


def test_a_broken_file_costs_only_itself(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GATEWAY % ("a", "meshgw"))
    (tmp_path / "b.yaml").write_text("a: [")
    found = evaluate([str(tmp_path)])
    assert found.gateways == (Key("default", "a"),)
    assert [problem.code for problem in found.problems] == ["MG9101"]
