"""Whose identities are fetched for the proxies of a cluster."""

from __future__ import annotations

import pytest

from meshgw.api.meta import Key
from meshgw.cluster.accounts import own_accounts
from tests.unit.emit.deployed import deploy, gateway, parameters

NAME = Key("default", "gw-meshgw")


def account(owner: str = "", name: str = NAME.name) -> str:
    reference = f"{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, name: gw, uid: {owner}}}"
    owners = f"[{reference}]" if owner else "[]"
    return f"apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, ownerReferences: {owners}}}\n"


def test_a_gateway_has_the_identity_of_its_own_account() -> None:
    assert own_accounts(deploy(gateway(), account("uid-of-gw")).graph) == {NAME}
    assert own_accounts(deploy(gateway()).graph) == set(), "it is not there yet"


@pytest.mark.parametrize("owner", ["", "uid-of-other"])
def test_a_name_gives_nobody_the_identity_of_others(owner: str) -> None:
    assert own_accounts(deploy(gateway(), account(owner)).graph) == set()


def test_a_gateway_that_is_held_keeps_its_identity() -> None:
    world = deploy(gateway(own=True), account("uid-of-gw"))
    assert world.plan().held_by
    assert own_accounts(world.graph) == {NAME}


def test_who_runs_proxies_makes_their_account() -> None:
    world = deploy(gateway(own=True), parameters("{selfManaged: {}}"), account())
    assert own_accounts(world.graph) == {NAME}
