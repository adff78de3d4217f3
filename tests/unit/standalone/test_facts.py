"""Files as batches of facts."""

from __future__ import annotations

from pathlib import Path

from meshgw.api.meta import Key
from meshgw.resolve import tables as t
from meshgw.standalone.facts import FileFacts, read_text

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
"""
KEY = Key("default", "a")


def facts_of(folder: Path) -> FileFacts:
    """Facts of a folder whose one file has been taken."""
    (folder / "main.yaml").write_text(SERVICE)
    facts = FileFacts([str(folder)])
    facts.read()
    assert KEY in facts.take()[t.SERVICES]
    return facts


def test_what_is_gone_waits_until_removals_are_taken(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    (tmp_path / "main.yaml").unlink()
    facts.read()
    assert facts.take(removals=False) == {}
    assert facts.removing
    assert facts.take() == {t.SERVICES: {KEY: None}}
    assert not facts.removing


def test_what_returns_in_time_is_not_removed(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    (tmp_path / "main.yaml").unlink()
    facts.read()
    facts.take(removals=False)
    (tmp_path / "main.yaml").write_text(SERVICE)
    facts.read()
    row = facts.take()[t.SERVICES][KEY]
    assert row is not None
    assert not facts.removing


def test_a_refused_document_cannot_write_lines_of_its_own_into_findings() -> None:
    name = '"a\\n\\u001b[2Jfaked: all is well"'
    _facts, (problem,) = read_text(f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n")
    assert problem.object.name == "a\\n\\x1b[2Jfaked: all is well"
    assert problem.message.isprintable()
