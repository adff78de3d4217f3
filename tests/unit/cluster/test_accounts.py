"""Whose identities are fetched for the proxies of a cluster."""

from __future__ import annotations

import pytest

from meshgw.api.meta import Key
from meshgw.cluster.accounts import own_accounts, served_gateway
from tests.unit.emit.deployed import deploy, gateway, gateway_class, parameters

NAME = Key("default", "gw-meshgw")


def account(owner: str = "", name: str = NAME.name) -> str:
    reference = f"{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, name: gw, uid: {owner}}}"
    owners = f"[{reference}]" if owner else "[]"
    return f"apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, ownerReferences: {owners}}}\n"


def served(*texts: str) -> Key | None:
    return served_gateway(deploy(*texts).graph, NAME)


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


def test_who_runs_as_a_gateways_own_account_gets_its_configuration() -> None:
    assert served(gateway(), account("uid-of-gw")) == Key("default", "gw")
    assert served(gateway(own=True), account("uid-of-gw")) == Key("default", "gw"), "one that is held, too"
    assert served(gateway(own=True), parameters("{selfManaged: {}}"), account()) == Key("default", "gw")


@pytest.mark.parametrize("owner", ["", "uid-of-other"])
def test_an_account_gets_nothing_by_its_name(owner: str) -> None:
    assert served(gateway(), account(owner)) is None
    assert served(gateway()) is None
    own = account("uid-of-other")
    assert served(gateway(own=True), parameters("{selfManaged: {}}"), own) is None, "it is another Gateway's"


def test_of_gateways_with_one_name_for_their_objects_the_account_is_whose_it_was_made_for() -> None:
    older, younger = gateway("gw-a", class_name="meshgw"), gateway("gw", class_name="a-meshgw")
    declared = gateway_class("a-meshgw", parameters="{namespace: infra, name: all}") + parameters("{}", "all", "infra")
    for owner in ("gw", "gw-a"):
        graph = deploy(older, younger, declared, account(f"uid-of-{owner}", "gw-a-meshgw")).graph
        assert served_gateway(graph, Key("default", "gw-a-meshgw")) == Key("default", owner)
