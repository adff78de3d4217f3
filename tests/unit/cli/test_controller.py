"""`meshgw controller`: flags become settings, and what cannot be mended here ends in one line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from click.testing import CliRunner, Result

from meshgw.cli.main import main
from meshgw.cluster import application
from meshgw.cluster.scope import Scope
from meshgw.config import ClusterSettings, IstioSettings
from meshgw.kube import client
from meshgw.kube.client import AccessError, KubeSettings


class Replica:
    """A replica that ends at once."""

    made: list[tuple[ClusterSettings, Scope]]
    accesses: list[KubeSettings]
    error: Exception | None = None
    refusal: Exception | None = None

    def __init__(self, settings: ClusterSettings, scope: Scope, _client: object) -> None:
        self.made.append((settings, scope))

    async def run(self, _stop: asyncio.Event) -> None:
        if self.error is not None:
            raise ExceptionGroup("tasks", [ExceptionGroup("more tasks", [self.error])])


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> type[Replica]:
    fake: type[Replica] = type("Fake", (Replica,), {"made": [], "accesses": []})

    @asynccontextmanager
    async def connect(settings: KubeSettings) -> AsyncIterator[None]:
        fake.accesses.append(settings)
        if fake.refusal is not None:
            raise fake.refusal
        yield

    monkeypatch.setattr(application, "Application", fake)
    monkeypatch.setattr(client, "connect", connect)
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    return fake


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, ["controller", *arguments], env=environment)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), {"namespaces": (), "home": "meshgw-system", "leader_election": True, "istio": IstioSettings()}),
        (("--namespaces", "a,b", "--namespaces", "c"), {"namespaces": ("a", "b", "c")}),
        (("--no-mesh", "--no-leader-election"), {"istio": None, "leader_election": False}),
        (
            ("--ip-families", "dual", "--metrics-listen", "127.0.0.1:1"),
            {
                "dual_stack": True,
                "xds_listen": "[::]:18000",
                "health_listen": "[::]:8081",
                "metrics_listen": "127.0.0.1:1",
            },
        ),
        (
            ("--ip-families", "ipv4", "--network", "east"),
            {"dual_stack": False, "xds_listen": "0.0.0.0:18000", "istio": IstioSettings(network="east")},
        ),
        (("--gateway-parameters", "safe"), {"own_parameters": "safe"}),
        (("--xds-address", "[fd00::1]:1", "--home", "here"), {"dialled": "[fd00::1]:1", "home": "here"}),
        (
            ("--revision", "canary", "--trust-domain", "td", "--trust-domain-alias", "old,older"),
            {"istio": IstioSettings(revision="canary", trust_domain="td", trust_domain_aliases=("old", "older"))},
        ),
    ],
)
def test_flags_become_settings(replica: type[Replica], arguments: tuple[str, ...], expected: dict[str, Any]) -> None:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    ((settings, _scope),) = replica.made
    assert {name: getattr(settings, name) for name in expected} == expected


def test_a_pod_says_who_and_where_it_is(replica: type[Replica]) -> None:
    assert run(POD_NAME="meshgw-0", POD_NAMESPACE="gateways", MESHGW_CONTROLLER_CLUSTER_ID="east").exit_code == 0
    ((settings, _scope),) = replica.made
    assert (settings.instance, settings.home, settings.dialled) == ("meshgw-0", "gateways", "meshgw.gateways.svc:18000")
    assert settings.istio is not None
    assert settings.istio.cluster_id == "east"


def test_a_selector_picks_namespaces(replica: type[Replica]) -> None:
    assert run("--namespace-selector", "team in (a,b)", "--kubeconfig", "k", "--context", "c").exit_code == 0
    ((_settings, scope),) = replica.made
    assert scope.selector is not None
    assert scope.selector.match_expressions[0].values == ("a", "b")
    assert replica.accesses == [KubeSettings(kubeconfig="k", context="c")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--namespaces", "a", "--namespace-selector", "b"), "exclude each other"),
        (("--namespace-selector", "a in b"), "--namespace-selector: 'a in b' is no label requirement"),
        (("--xds-listen", "here"), "--xds-listen: 'here' is not host:port"),
        (("--metrics-listen", "0.0.0.0:99999"), "--metrics-listen: '0.0.0.0:99999' is not host:port"),
    ],
)
def test_flags_that_make_no_sense_are_usage_errors(
    replica: type[Replica], arguments: tuple[str, ...], said: str
) -> None:
    done = run(*arguments)
    assert (done.exit_code, replica.made) == (2, [])
    assert said in done.output


@pytest.mark.parametrize("error", [OSError("xDS cannot listen on 0.0.0.0:18000"), ValueError("'x' is not host:port")])
def test_what_cannot_be_mended_ends_in_one_line(replica: type[Replica], error: Exception) -> None:
    replica.error = error
    done = run()
    assert (done.exit_code, done.output) == (1, f"Error: {error}\n")


def test_without_a_cluster_the_remedy_is_named(replica: type[Replica]) -> None:
    replica.refusal = AccessError("there is no kubeconfig at x, and this is no pod")
    done = run()
    expected = "Error: there is no kubeconfig at x, and this is no pod; see --kubeconfig and --context\n"
    assert (done.exit_code, done.output) == (1, expected)
