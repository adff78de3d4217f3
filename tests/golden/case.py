"""A golden case: a folder with `in.yaml`, and beside it what the pipeline must make of it.

The first document of `in.yaml` may be `kind: Case` and hold what a deployment would decide: settings, bindings, mesh
certificates. Test code knows no case by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import yaml

from meshgw.api.meta import Key
from meshgw.cli.output import dump_yaml
from meshgw.diagnose.render import render_findings, render_resolved, render_statuses
from meshgw.emit.dump import render_resources
from meshgw.engine import Graph
from meshgw.ir.backend import WorkloadCertificate
from meshgw.ir.finding import Finding
from meshgw.ir.gateway import Binding, Settings
from meshgw.pipeline import build_graph
from meshgw.resolve import tables as t
from meshgw.standalone.facts import read_text

ROOT = Path(__file__).parent
CASES = sorted(path.parent for path in ROOT.rglob("in.yaml"))
OUTPUTS = ("ir", "xds", "status", "findings")


class CaseHeader(msgspec.Struct, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """The header document."""

    api_version: str = "meshgw.dev/v1alpha1"
    kind: str = "Case"
    about: str = ""
    settings: Settings = Settings(loopback_endpoints=True)
    bindings: dict[str, Binding] = {}
    mesh_certificates: list[str] = []


class Evaluation(msgspec.Struct):
    """A committed pipeline and what reading the input found."""

    graph: Graph
    problems: tuple[Finding, ...]


def evaluate(text: str, *, incremental: bool = True) -> Evaluation:
    """Run the pipeline over the YAML of a case."""
    header, rest = split_header(text)
    batch, problems = read_text(rest)
    batch[t.SETTINGS] = {t.SINGLE: header.settings}
    batch[t.BINDINGS] = {_key(name): binding for name, binding in header.bindings.items()}
    batch[t.WORKLOAD_CERTIFICATES] = {
        _key(name): WorkloadCertificate(chain=b"chain", key=b"key", roots=b"roots") for name in header.mesh_certificates
    }
    graph = build_graph(incremental=incremental)
    delta = graph.commit(batch)
    assert not delta.faults, delta.faults
    return Evaluation(graph=graph, problems=problems)


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


def outputs(text: str) -> dict[str, str]:
    """Return the four outputs of a case as YAML."""
    found = evaluate(text)
    documents: dict[str, Any] = {
        "ir": render_resolved(found.graph),
        "xds": render_resources(found.graph),
        "status": render_statuses(found.graph),
        "findings": render_findings(found.graph, found.problems),
    }
    return {name: dump_yaml(documents[name]) for name in OUTPUTS}
