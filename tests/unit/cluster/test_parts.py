"""Parts that follow from settings."""

from __future__ import annotations

import asyncio
from typing import cast

from meshgw.cluster.parts import make_certificates, make_elector, make_settings, unless
from meshgw.cluster.serving import GivenSecret, OwnAuthority
from meshgw.config import ClusterSettings, IstioSettings
from meshgw.ir.gateway import OwnParameters
from meshgw.kube.client import Client

NOBODY = cast("Client", None)


def test_the_pipeline_knows_the_mesh_and_where_proxies_dial() -> None:
    istio = IstioSettings(trust_domain="td", root_namespace="mesh", network="east")
    settings = ClusterSettings(home="gateways", own_parameters="none", dual_stack=True, istio=istio)
    made = make_settings(settings)
    assert (made.own_parameters, made.dual_stack, made.network) == (OwnParameters.NONE, True, "east")
    assert (made.deploys, made.mesh, made.trust_domain, made.root_namespace) == (True, True, "td", "mesh")
    assert made.xds_address == "meshgw.gateways.svc:18000"
    apart = make_settings(ClusterSettings(istio=None))
    assert (apart.mesh, apart.trust_domain, apart.loopback_endpoints) == (False, "cluster.local", False)


async def test_work_is_given_up_when_the_end_comes_first() -> None:
    stop, done = asyncio.Event(), list[str]()

    async def work() -> None:
        await asyncio.sleep(0)
        done.append("work")

    assert await unless(stop, work())
    assert done == ["work"]

    async def endless() -> None:
        stop.set()
        await asyncio.Event().wait()

    assert not await unless(stop, endless())


def test_istiod_is_found_by_revision_and_namespace_unless_named() -> None:
    assert IstioSettings().address == "istiod.istio-system.svc:15012"
    assert IstioSettings(revision="canary", root_namespace="mesh").address == "istiod-canary.mesh.svc:15012"
    assert IstioSettings(revision="canary", istiod="a.b:1").address == "a.b:1"


def test_certificates_come_from_our_own_ca_or_from_a_secret_of_others() -> None:
    assert isinstance(make_certificates(NOBODY, ClusterSettings()), OwnAuthority)
    assert isinstance(make_certificates(NOBODY, ClusterSettings(xds_secret="tls")), GivenSecret)


def test_two_replicas_of_one_name_are_two_candidates() -> None:
    one, two = (make_elector(NOBODY, ClusterSettings(instance="pod"), lambda _leads: None) for _ in range(2))
    assert one is not None
    assert two is not None
    assert one.identity.startswith("pod_")
    assert one.identity != two.identity
    assert make_elector(NOBODY, ClusterSettings(leader_election=False), lambda _leads: None) is None
