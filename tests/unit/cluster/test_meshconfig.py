"""What Istio's own configuration says."""

from __future__ import annotations

import pytest

from meshgw.api.core import ConfigMap
from meshgw.api.meta import ObjectMeta
from meshgw.cluster.meshconfig import MeshConfig, mesh_config_name, read_mesh_config


def config_map(**data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name="istio", namespace="istio-system"), data=data)


def test_the_trust_domain_and_its_former_names_are_read() -> None:
    text = "trustDomain: new.example\ntrustDomainAliases: [old.example]\nenableTracing: true\n"
    assert read_mesh_config(config_map(mesh=text)) == MeshConfig(
        trust_domain="new.example", trust_domain_aliases=("old.example",)
    )


@pytest.mark.parametrize(
    "row",
    [
        None,
        config_map(),
        config_map(mesh=""),
        config_map(mesh="{"),
        config_map(mesh="[1]"),
        config_map(mesh="trustDomain: 3"),
        config_map(mesh="trustDomain: Upper/Case"),
        config_map(mesh="trustDomainAliases: ['', x]"),
        config_map(mesh="[" * 5000),
    ],
)
def test_what_says_nothing_readable_leaves_istios_defaults(row: ConfigMap | None) -> None:
    assert read_mesh_config(row) == MeshConfig(trust_domain="cluster.local")


@pytest.mark.parametrize(("revision", "name"), [("", "istio"), ("default", "istio"), ("canary", "istio-canary")])
def test_every_revision_has_a_configuration_of_its_own(revision: str, name: str) -> None:
    assert mesh_config_name(revision) == name
