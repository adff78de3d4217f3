"""Parts of the application that follow from its settings alone, and how it waits for its end."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine

from meshgw.api.meta import Key
from meshgw.cluster.serving import OWN_SECRET, GivenSecret, OwnAuthority, Source, server_names
from meshgw.config import ClusterSettings
from meshgw.ir.gateway import OwnParameters, Settings
from meshgw.kube.client import Client
from meshgw.kube.lease import Elector


def make_settings(settings: ClusterSettings) -> Settings:
    """Return what the pipeline needs to know, before anything is known of the mesh."""
    istio = settings.istio
    defaults = Settings()
    return Settings(
        controller_name=settings.controller_name,
        trust_domain=(istio.trust_domain if istio else "") or defaults.trust_domain,
        trust_domain_aliases=istio.trust_domain_aliases if istio else (),
        cluster_domain=settings.cluster_domain,
        root_namespace=istio.root_namespace if istio else defaults.root_namespace,
        mesh=istio is not None,
        deploys=True,
        proxy_image=settings.proxy_image,
        dual_stack=settings.dual_stack,
        network=istio.network if istio else "",
        own_parameters=OwnParameters(settings.own_parameters),
        xds_address=settings.dialled,
    )


def make_certificates(client: Client, settings: ClusterSettings) -> Source:
    """Return where the certificate of the xDS server comes from: a Secret of others, or a CA of our own."""
    if settings.xds_secret:
        return GivenSecret(client, Key(settings.home, settings.xds_secret))
    host = settings.dialled.rpartition(":")[0].strip("[]")
    names = dict.fromkeys((host, *server_names(Key(settings.home, "meshgw"))))
    return OwnAuthority(client, Key(settings.home, OWN_SECRET), tuple(names))


def make_elector(client: Client, settings: ClusterSettings, changed: Callable[[bool], None]) -> Elector | None:
    """Return a candidate for the Lease, None where nobody is to be elected."""
    if not settings.leader_election:
        return None
    identity = f"{settings.instance or 'meshgw'}_{secrets.token_hex(4)}"
    return Elector(client, namespace=settings.home, name=settings.lease_name, identity=identity, changed=changed)


async def unless(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Do something and return True, or give it up and return False when `stop` is set before."""
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(work)
        stopping = tasks.create_task(stop.wait())
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        working.cancel()
        stopping.cancel()
    return not stop.is_set()
