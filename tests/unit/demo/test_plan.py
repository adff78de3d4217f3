"""Addresses, ports and manifests of the demo."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from meshgw.demo import plan as module
from meshgw.demo.plan import Plan, claim_plan, write_manifests
from meshgw.names import HBONE_PORT
from meshgw.standalone.lock import InUseError


def test_two_plans_share_no_place() -> None:
    first, second = Plan(number=15), Plan(number=16)
    assert not set(first.places) & set(second.places)
    assert len(set(first.places)) == len(first.places)


def test_the_ports_of_all_blocks_are_below_those_of_outgoing_connections() -> None:
    ports = [client.port for number in module._BLOCKS for client in Plan(number=number).clients]
    assert len(set(ports)) == len(ports)
    assert max(ports) < 32_768


def test_the_first_plan_has_the_addresses_of_the_shipped_manifests(tmp_path: Path) -> None:
    plan = Plan()
    write_manifests(plan, tmp_path)
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert all(host in text for host, _port in plan.places if host != "127.0.0.1")
    assert plan.frontend.authority in {f"{vip}:80" for vip in _virtual_addresses(tmp_path)}
    assert plan.bookkeeper.authority in {f"{vip}:80" for vip in _virtual_addresses(tmp_path)}


def test_manifests_move_to_the_claimed_block(tmp_path: Path) -> None:
    write_manifests(Plan(number=99), tmp_path)
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "127.0.15." not in text
    assert "127.0.99.10" in text


def test_demos_at_the_same_time_have_different_blocks() -> None:
    with claim_plan() as first, claim_plan() as second:
        assert first.number != second.number
        assert not set(first.places) & set(second.places)


def test_a_block_in_which_somebody_listens_is_passed_over() -> None:
    with ExitStack() as stack:
        first = stack.enter_context(claim_plan())
        number = first.number
        stack.pop_all().close()
        with socket.create_server((Plan(number=number).waypoint, HBONE_PORT)), claim_plan() as other:
            assert other.number != number


def test_without_a_free_block_the_demo_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "probe_address", lambda _host, _port: "in use")
    with pytest.raises(InUseError, match="no free loopback addresses"), claim_plan():
        pass


def _virtual_addresses(folder: Path) -> set[str]:
    documents = (document for path in folder.iterdir() for document in yaml.safe_load_all(path.read_text()))
    return {document["spec"]["clusterIP"] for document in documents if document["kind"] == "Service"}
