from __future__ import annotations

from meshgw.emit.filters import ROUTER, http_filters, route_filters
from meshgw.features import FEATURES
from meshgw.ir.route import Cors, ExternalAuth, Filters, Rule, SessionPersistence
from tests.unit.emit.world import target
from tests.unit.features.scopes import scope


def test_a_route_configures_only_the_filters_it_uses() -> None:
    assert route_filters(scope()) == {}
    auth = ExternalAuth(target=target("auth"), grpc=True)
    rule = Rule(session=SessionPersistence(name="s"))
    every = route_filters(scope(rule=rule, filters=Filters(cors=Cors(), external_auth=auth)))
    assert set(every) == {feature.filter_name for feature in FEATURES}


def test_every_chain_has_every_filter_once_and_the_router_last() -> None:
    names = [item.name for item in http_filters()]
    assert len(set(names)) == len(names) == len(FEATURES) + 1
    assert names[-1] == ROUTER


def test_stages_order_the_filters() -> None:
    stages = {feature.filter_name: feature.stage for feature in FEATURES}
    found = [stages[item.name] for item in http_filters()[:-1]]
    assert found == sorted(found)
