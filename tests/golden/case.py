"""A golden case: a folder with `in.yaml`, and beside it what the pipeline must make of it.

The first document of `in.yaml` may be `kind: Case` and hold what a deployment would decide: settings, bindings, mesh
certificates. Test code knows no case by name.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

from meshgw.api.gateway import GatewayClass
from meshgw.api.meta import Key
from meshgw.cli.output import dump_yaml
from meshgw.diagnose.render import render_findings, render_proxies, render_resolved, render_statuses
from meshgw.emit.dump import render_resources
from meshgw.emit.proxy_config import BOOTSTRAP_FILE
from meshgw.engine import Graph, Table
from meshgw.ir.backend import WorkloadCertificate
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Binding, Settings
from meshgw.pipeline import build_graph
from meshgw.resolve import tables as t
from meshgw.standalone.facts import read_text

ROOT = Path(__file__).parent
CASES = sorted(path.parent for path in ROOT.rglob("in.yaml"))
OUTPUTS = ("ir", "xds", "status", "findings")
LOOPBACK = Binding(bind="127.0.0.1", addresses=("127.0.0.1",))
STAND_IN = WorkloadCertificate(chain=b"chain", key=b"key", roots=b"roots")

Facts = dict[Table[Any, Any], dict[Any, Any]]


class CaseHeader(msgspec.Struct, forbid_unknown_fields=True, rename={"api_version": "apiVersion"}, kw_only=True):
    """The header document. A Gateway without a binding of its own is at 127.0.0.1."""

    api_version: str = "meshgw.dev/v1alpha1"
    kind: str = "Case"
    about: str = ""
    settings: Settings = Settings()
    bindings: dict[str, Binding] = {}
    mesh_certificates: list[str] = []
    ordered: bool = False
    """Whether the order of the documents matters: of two for one object the first wins."""


class Input(msgspec.Struct):
    """What a case commits: `facts` from its documents, `circumstances` from its header, and what is wrong with it."""

    header: CaseHeader
    facts: Facts
    circumstances: Facts
    problems: tuple[Finding, ...]
    classes: frozenset[str]
    """Names of the GatewayClasses that it declares."""


def read_case(text: str) -> Input:
    """Read the YAML of a case."""
    header, rest = split_header(text)
    facts, problems = read_text(rest)
    bindings = dict.fromkeys(facts.get(t.GATEWAYS, {}), LOOPBACK)
    bindings |= {_key(name): binding for name, binding in header.bindings.items()}
    circumstances: Facts = {
        t.SETTINGS: {t.SINGLE: header.settings},
        t.BINDINGS: bindings,
        t.WORKLOAD_CERTIFICATES: {_key(name): STAND_IN for name in header.mesh_certificates},
    }
    classes = facts[t.GATEWAY_CLASSES]
    return Input(
        header=header,
        facts=facts,
        circumstances=circumstances,
        problems=problems,
        classes=frozenset(key.name for key, row in classes.items() if _standard_classes().get(key) != row),
    )


@cache
def _standard_classes() -> dict[Key, GatewayClass]:
    """Return the classes that exist without being declared."""
    facts, _problems = read_text("")
    return facts[t.GATEWAY_CLASSES]


def commit_all(case: Input, *, incremental: bool = True) -> Graph:
    """Commit a case at once."""
    graph = build_graph(incremental=incremental)
    commit(graph, case.circumstances | case.facts)
    return graph


def commit(graph: Graph, batch: Facts) -> None:
    """Commit some facts, which must not make any step raise."""
    delta = graph.commit(batch)
    assert delta.faults == (), delta.faults


def split_header(text: str) -> tuple[CaseHeader, str]:
    """Separate the header document; without one, the defaults hold."""
    head, _mark, rest = text.partition("\n---\n")
    try:
        document = yaml.safe_load(head)
    except yaml.YAMLError:
        document = None
    if isinstance(document, dict) and document.get("kind") == "Case":
        return msgspec.convert(document, CaseHeader), rest
    return CaseHeader(), text


def _key(name: str) -> Key:
    namespace, _slash, rest = name.partition("/")
    return Key(namespace, rest)


def output_names(case: Input) -> tuple[str, ...]:
    """Return which outputs a case has: the objects of proxies only if its settings are those of a cluster."""
    return (*OUTPUTS, "proxies") if case.header.settings.deploys else OUTPUTS


def outputs(case: Input, graph: Graph) -> dict[str, str]:
    """Return the outputs of a committed case as YAML."""
    documents = {
        "ir": _resolved(case, graph),
        "xds": render_resources(graph),
        "status": _statuses(case, graph),
        "findings": render_findings(graph, case.problems),
        "proxies": _proxies(graph),
    }
    return {name: dump_yaml(documents[name]) for name in output_names(case)}


def _proxies(graph: Graph) -> list[dict[str, Any]]:
    """Return the objects without their bootstraps, which have tests of their own; a digest is in the pods."""
    items: list[dict[str, Any]] = render_proxies(graph)["items"]
    for item in items:
        if BOOTSTRAP_FILE in item.get("data", {}):
            item["data"] = {**item["data"], BOOTSTRAP_FILE: "(left out)"}
    return items


def _resolved(case: Input, graph: Graph) -> dict[str, Any]:
    resolved = render_resolved(graph)
    classes = {name: row for name, row in resolved.pop("classes", {}).items() if name in case.classes}
    return {"classes": classes, **resolved} if classes else resolved


def _statuses(case: Input, graph: Graph) -> list[dict[str, Any]]:
    """Return the statuses, without those of the classes that exist undeclared: they would be the same everywhere."""
    return [
        status
        for status in render_statuses(graph)
        if status["kind"] != "GatewayClass" or status["name"] in case.classes
    ]


def state(graph: Graph) -> dict[str, dict[Any, Any]]:
    """Return all derived rows, for comparing two ways to the same facts."""
    return {name: dict(graph.rows(table)) for name, table in graph.tables.items()}
