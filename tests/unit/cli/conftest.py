"""Commands over a folder of YAML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshgw.cli.main import main

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec: {gatewayClassName: meshgw, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route}
spec: {parentRefs: [{name: gw}], rules: [{backendRefs: [{name: absent, port: 80}]}]}
"""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Write documents to a file and run a verb over it."""

    def run(verb: str, *arguments: str, documents: tuple[str, ...] = (GATEWAY,)) -> Result:
        path = tmp_path / "in.yaml"
        path.write_text("---".join(documents))
        return CliRunner().invoke(main, [verb, "-f", str(path), *arguments])

    return run
