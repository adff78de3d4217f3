"""`meshgw translate`: one form of the result."""

from __future__ import annotations

import json

import pytest
import yaml

from meshgw.cli.translate import TARGETS
from tests.unit.cli.conftest import GATEWAY, ROUTE, Run

OTHER = GATEWAY.replace("name: gw", "name: other")


@pytest.mark.parametrize("target", TARGETS)
def test_every_form_is_a_document_in_yaml_and_json(run: Run, target: str) -> None:
    as_yaml = run("translate", "--to", target, documents=(GATEWAY, ROUTE))
    as_json = run("translate", "--to", target, "-o", "json", documents=(GATEWAY, ROUTE))
    assert (as_yaml.exit_code, as_json.exit_code) == (0, 0)
    assert yaml.safe_load(as_yaml.output) == json.loads(as_json.output) != {}


def test_one_gateway_can_be_chosen(run: Run) -> None:
    both = run("translate", "--to", "xds", documents=(GATEWAY, OTHER))
    one = run("translate", "--to", "xds", "--gateway", "default/other", documents=(GATEWAY, OTHER))
    assert set(yaml.safe_load(both.output)) == {"default/gw", "default/other"}
    assert set(yaml.safe_load(one.output)) == {"default/other"}


def test_one_static_configuration_stands_by_itself_and_several_have_names(run: Run) -> None:
    one = yaml.safe_load(run("translate", "--to", "envoy").output)
    assert one["static_resources"]["listeners"]
    several = yaml.safe_load(run("translate", "--to", "envoy", documents=(GATEWAY, OTHER)).output)
    assert set(several) == {"default/gw", "default/other"}


@pytest.mark.parametrize("name", ["default/absent", "gw"])
def test_an_unknown_gateway_is_a_usage_error_that_names_the_known_ones(run: Run, name: str) -> None:
    done = run("translate", "--to", "xds", "--gateway", name)
    assert done.exit_code == 2
    assert "there are: default/gw" in done.output


def test_the_objects_of_one_gateway_can_be_chosen(run: Run) -> None:
    one = run("translate", "--to", "proxies", "--gateway", "default/other", documents=(GATEWAY, OTHER))
    items = yaml.safe_load(one.output)["items"]
    assert {item["metadata"]["name"] for item in items} == {"other-meshgw"}
    assert {item["kind"] for item in items} >= {"Deployment", "Service"}
