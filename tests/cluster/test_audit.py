from pathlib import Path

from tests.cluster.audit import read_audit


def test_whole_events_are_read_and_one_without_a_user_has_none(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    assert read_audit(log) == []
    log.write_text('{"verb":"list","user":{"username":"jane"}}\n{"verb":"get","user":{}}\n{"verb":"get","user":{"us}')
    assert [(event["verb"], event["user"]["username"]) for event in read_audit(log)] == [("list", "jane"), ("get", "")]
