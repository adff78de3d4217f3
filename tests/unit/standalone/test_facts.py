"""Files as batches of facts."""

from __future__ import annotations

from pathlib import Path

from meshgw.api.meta import Key
from meshgw.api.policy import BackendTLSPolicy
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


POLICY = """
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: p, namespace: default}
spec:
  targetRefs: [{group: '', kind: Service, name: SERVICE}]
  validation: {hostname: HOST, wellKnownCACertificates: System}
"""
POLICY_KEY = Key("default", "p")


def test_something_stands_for_a_policy_that_never_could_be_read_until_it_can(tmp_path: Path) -> None:
    facts, file = facts_of(tmp_path), tmp_path / "policy.yaml"

    def write(service: str, host: str) -> BackendTLSPolicy | None:
        file.write_text(POLICY.replace("SERVICE", service).replace("HOST", host))
        facts.read()
        row: BackendTLSPolicy | None = facts.take().get(t.BACKEND_TLS_POLICIES, {}).get(POLICY_KEY)
        return row

    row = write("a", "7")
    assert row is not None
    assert row.unreadable
    row = write("b", "7")
    assert row is not None
    assert [ref.name for ref in row.spec.target_refs] == ["b"]
    row = write("b", "b.example.com")
    assert row is not None
    assert not row.unreadable
    assert write("b", "7") is None, "the last good version stays"


def test_what_stood_for_a_policy_goes_with_it(tmp_path: Path) -> None:
    facts, file = facts_of(tmp_path), tmp_path / "policy.yaml"
    file.write_text(POLICY.replace("SERVICE", "a").replace("HOST", "7"))
    facts.read()
    assert facts.take()[t.BACKEND_TLS_POLICIES][POLICY_KEY] is not None
    file.unlink()
    facts.read()
    assert facts.take() == {t.BACKEND_TLS_POLICIES: {POLICY_KEY: None}}
