"""A controller that gives every Service of type LoadBalancer an address of a range; kube-proxy does the rest.

`spec.loadBalancerIP` is honoured if it is free and of the range; Services with a class of their own are left alone.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.cluster.access import Access

_SERVICES: Final = "/api/v1/services"
_PAUSE: Final = 0.5


class Addresses:
    """Which Service has which address."""

    def __init__(self, network: str) -> None:
        self._network = ipaddress.ip_network(network)
        self._holders: dict[str, str] = {}

    def claim(self, holder: str, wanted: str) -> str | None:
        """Return the holder's address: `wanted` if it can be, else any; None when all are taken."""
        mine = next((address for address, name in self._holders.items() if name == holder), None)
        if mine is not None and wanted in ("", mine):
            return mine
        self.release(holder)
        free = (str(address) for address in self._network.hosts() if str(address) not in self._holders)
        usable = wanted and wanted not in self._holders and ipaddress.ip_address(wanted) in self._network
        address = wanted if usable else next(free, None)
        if address is not None:
            self._holders[address] = holder
        return address

    def release(self, holder: str) -> None:
        """Let the holder's address be free."""
        self._holders = {address: name for address, name in self._holders.items() if name != holder}


def status_for(service: Mapping[str, Any], addresses: Addresses) -> Mapping[str, Any] | None:
    """Return what `status.loadBalancer` must become, None when it is right; claims and releases addresses."""
    spec, meta = service["spec"], service["metadata"]
    now = service.get("status", {}).get("loadBalancer", {})
    holder = f"{meta['namespace']}/{meta['name']}"
    if spec.get("type") != "LoadBalancer" or meta.get("deletionTimestamp"):
        addresses.release(holder)
        return {} if now and spec.get("type") != "LoadBalancer" else None
    if spec.get("loadBalancerClass"):
        return None
    given = [entry.get("ip", "") for entry in now.get("ingress", ())]
    address = addresses.claim(holder, spec.get("loadBalancerIP") or (given or [""])[0])
    if address is None or given == [address]:
        return None
    return {"ingress": [{"ip": address, "ipMode": "VIP"}]}


def follow(cluster: Access, addresses: Addresses) -> None:
    """Write addresses until the watch ends."""
    status, body = cluster.request("GET", _SERVICES)
    if status != 200:
        raise ConnectionError(f"list of Services: {status}")
    listed = json.loads(body)
    for service in sorted(listed["items"], key=lambda item: not item.get("status", {}).get("loadBalancer")):
        _write(cluster, service, addresses)
    version = listed["metadata"]["resourceVersion"]
    for line in cluster.lines(f"{_SERVICES}?watch=true&resourceVersion={version}&timeoutSeconds=300"):
        event = json.loads(line)
        if event["type"] == "ERROR":
            return
        if event["type"] == "DELETED":
            addresses.release(f"{event['object']['metadata']['namespace']}/{event['object']['metadata']['name']}")
        else:
            _write(cluster, event["object"], addresses)


def _write(cluster: Access, service: Mapping[str, Any], addresses: Addresses) -> None:
    wanted = status_for(service, addresses)
    if wanted is None:
        return
    meta = service["metadata"]
    path = f"/api/v1/namespaces/{meta['namespace']}/services/{meta['name']}/status"
    body = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": {"loadBalancer": wanted or None}}
    status, said = cluster.request("PATCH", path, body, content_type="application/merge-patch+json")
    if status not in (200, 404, 409):  # a conflict brings another event
        raise ConnectionError(f"{path}: {status} {said.decode()}")


def main(kubeconfig: Path, network: str) -> None:
    """Follow the cluster for ever."""
    cluster = Access(kubeconfig)
    while True:
        try:
            follow(cluster, Addresses(network))
        except (OSError, http.client.HTTPException) as error:
            sys.stderr.write(f"{error!r}\n")
        time.sleep(_PAUSE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
