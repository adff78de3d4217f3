from __future__ import annotations

import pytest

from meshgw import features
from meshgw.emit.filters import ROUTER, http_filter, http_filters, route_filters
from meshgw.features import FEATURES, Feature, RouteFilter, Slot
from meshgw.ir.route import Cors, ExternalAuth, Filters, Rule, SessionPersistence
from meshgw.protos import Router
from tests.unit.emit.world import target
from tests.unit.features.scopes import scope

FILTERS = [item for feature in FEATURES for item in feature.filters]


def idle(slot: Slot) -> RouteFilter:
    """A filter that nothing configures, named after its slot."""
    return RouteFilter(slot=slot, name=slot.name, inert=Router)


def test_a_route_configures_only_the_filters_it_uses() -> None:
    assert route_filters(scope()) == {}
    auth = ExternalAuth(target=target("auth"), grpc=True)
    rule = Rule(session=SessionPersistence(name="s"))
    every = route_filters(scope(rule=rule, filters=Filters(cors=Cors(), external_auth=auth)))
    assert set(every) == {item.name for item in FILTERS}


def test_every_chain_has_every_filter_once_and_the_router_last() -> None:
    names = [item.name for item in http_filters()]
    assert len(set(names)) == len(names) == len(FILTERS) + 1
    assert names[-1] == ROUTER


def test_slots_order_the_filters_of_all_features_and_authorization_is_first_in_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traffic = Feature(name="traffic", filters=(idle(Slot.FAULT), idle(Slot.RATE_LIMIT), idle(Slot.AUTHORIZATION)))
    tokens = Feature(name="tokens", filters=(idle(Slot.AUTHENTICATION), idle(Slot.CORS)))
    monkeypatch.setattr(features, "FEATURES", (traffic, tokens))
    own = http_filter("own", Router())
    names = [item.name for item in http_filters((own,))]
    assert names == ["CORS", "AUTHENTICATION", "own", "AUTHORIZATION", "RATE_LIMIT", "FAULT", ROUTER]
