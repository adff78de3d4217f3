"""As whom the proxies of Gateways are in the mesh of a cluster."""

from __future__ import annotations

from meshgw.api.meta import Key
from meshgw.control import accepted_gateways
from meshgw.engine import Graph
from meshgw.ir.proxy import Deploying
from meshgw.resolve import tables as t


def own_accounts(graph: Graph) -> set[Key]:
    """Return the ServiceAccounts whose identity Gateways have: those that are theirs, or that a user made for them.

    What a Gateway is called decides the name of its account. Whoever may make a Gateway must not get the identity of
    somebody else's workloads by that.
    """
    found: set[Key] = set()
    for key, row in accepted_gateways(graph).items():
        name = Key(key.namespace, row.service_account)
        account, plan = graph.get(t.SERVICE_ACCOUNTS, name), graph.get(t.PROXY_PLANS, key)
        if account is None or plan is None:
            continue
        owners = {owner.uid for owner in account.metadata.owner_references}
        if plan.deploying is Deploying.SELF_MANAGED or (plan.uid and plan.uid in owners):
            found.add(name)
    return found
