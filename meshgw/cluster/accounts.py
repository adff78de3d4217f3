"""As whom the proxies of Gateways run in a cluster: their ServiceAccounts, and whether these are really theirs.

What a Gateway is called decides the name of its account. Whoever may make a Gateway must not get the identity of
somebody else's workloads by that, and whoever may make an account must not get a Gateway's configuration.
"""

from __future__ import annotations

from meshgw.api.meta import Key
from meshgw.control import accepted_gateways
from meshgw.engine import Graph
from meshgw.ir.gateway import Gateway
from meshgw.ir.proxy import Deploying
from meshgw.resolve import tables as t


def own_accounts(graph: Graph) -> set[Key]:
    """Return the ServiceAccounts whose identity Gateways have: those that are theirs, or that a user made for them."""
    return {
        Key(key.namespace, row.service_account)
        for key, row in accepted_gateways(graph).items()
        if _has_account(graph, key, row)
    }


def served_gateway(graph: Graph, account: Key) -> Key | None:
    """Return the Gateway whose configuration is for those who run as a ServiceAccount; None if it is nobody's."""
    rows = sorted(graph.by(t.OUR_GATEWAYS, "account", account))
    return next((key for key, row in rows if row.accepted and _has_account(graph, key, row)), None)


def _has_account(graph: Graph, key: Key, row: Gateway) -> bool:
    """Whether the ServiceAccount of a Gateway is there and the Gateway's.

    It is if it was made for this very Gateway, or if the user who runs the proxies made it, for no other Gateway.
    """
    account = graph.get(t.SERVICE_ACCOUNTS, Key(key.namespace, row.service_account))
    plan = graph.get(t.PROXY_PLANS, key)
    if account is None or plan is None:
        return False
    owners = {owner.uid for owner in account.metadata.owner_references if owner.kind == "Gateway"}
    if plan.uid and plan.uid in owners:
        return True
    return plan.deploying is Deploying.SELF_MANAGED and not owners
