"""What the demo's mesh consists of and where it is: the same on every machine but for addresses and ports."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from meshgw.api.meta import Key
from meshgw.names import DEFAULT_TRUST_DOMAIN, HBONE_PORT
from meshgw.standalone.lock import InUseError, probe_address

NAMESPACE: Final = "shop"
WAYPOINT: Final = Key(NAMESPACE, "waypoint")
APP_PORT: Final = 8080
ROUTE_FILE: Final = "route.yaml"

_BLOCKS: Final = range(15, 255)
_BLOCK: Final = "127.0.15."
"""The addresses in the manifests as they are shipped."""
_FIRST_PORT: Final = 18081
"""The ports of all blocks are below those that Linux gives to outgoing connections."""
_CLIENTS: Final = 4
_SHOP_VIP: Final = "10.96.0.10:80"
_LEDGER_VIP: Final = "10.96.0.20:80"


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A Pod: its application, and the ServiceAccount that its node proxy proves to be."""

    name: str
    address: str
    account: str

    @property
    def authority(self) -> str:
        """The application as a tunnel names it."""
        return f"{self.address}:{APP_PORT}"


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """A port of this machine whose connections enter the mesh as `account`, meant for `authority`.

    `via` is the address whose port 15008 the tunnel goes to, `peer` the ServiceAccount that must be there.
    """

    name: str
    account: str
    port: int
    authority: str
    via: str
    peer: str

    @property
    def url(self) -> str:
        """What to give to curl."""
        return f"http://127.0.0.1:{self.port}/"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One mesh on one block of loopback addresses, 127.0.<number>.0/24."""

    number: int = _BLOCKS.start
    trust_domain: str = DEFAULT_TRUST_DOMAIN

    @property
    def block(self) -> str:
        """What all addresses begin with."""
        return f"127.0.{self.number}."

    @property
    def waypoint(self) -> str:
        """Where the waypoint listens."""
        return f"{self.block}10"

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """All Pods. The one of `ledger` has the certificate of somebody else."""
        return (
            Workload(name="shop-v1", address=f"{self.block}21", account="shop"),
            Workload(name="shop-v2", address=f"{self.block}22", account="shop"),
            Workload(name="ledger", address=f"{self.block}23", account="impostor"),
        )

    @property
    def frontend(self) -> Client:
        """The client that may call the shop."""
        return self._client("frontend", "frontend", 0, _SHOP_VIP)

    @property
    def stranger(self) -> Client:
        """The client that may not."""
        return self._client("stranger", "stranger", 1, _SHOP_VIP)

    @property
    def bookkeeper(self) -> Client:
        """The frontend again, on its way to the ledger."""
        return self._client("bookkeeper", "frontend", 2, _LEDGER_VIP)

    @property
    def bypass(self) -> Client:
        """The frontend again, on its way to a Pod without the waypoint."""
        pod = self.workloads[0]
        return Client(
            name="bypass",
            account="frontend",
            port=self._port(3),
            authority=pod.authority,
            via=pod.address,
            peer=pod.account,
        )

    @property
    def clients(self) -> tuple[Client, ...]:
        """All clients."""
        return (self.frontend, self.stranger, self.bookkeeper, self.bypass)

    def spiffe(self, account: str) -> str:
        """Return the identity of a ServiceAccount."""
        return f"spiffe://{self.trust_domain}/ns/{NAMESPACE}/sa/{account}"

    def manifest(self, text: str) -> str:
        """Return a shipped manifest with the addresses of this mesh."""
        return text.replace(_BLOCK, self.block)

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Every address and port that is listened on."""
        pods = [(workload.address, port) for workload in self.workloads for port in (HBONE_PORT, APP_PORT)]
        return ((self.waypoint, HBONE_PORT), *pods, *(("127.0.0.1", client.port) for client in self.clients))

    def _client(self, name: str, account: str, index: int, authority: str) -> Client:
        return Client(
            name=name,
            account=account,
            port=self._port(index),
            authority=authority,
            via=self.waypoint,
            peer=WAYPOINT.name,
        )

    def _port(self, index: int) -> int:
        return _FIRST_PORT + (self.number - _BLOCKS.start) * _CLIENTS + index


@contextmanager
def claim_plan() -> Iterator[Plan]:
    """Yield a plan whose addresses and ports nobody else has; raises InUseError if there is none.

    A socket keeps other demos of this machine out of the block, whoever runs them; probes find everybody else.
    """
    for number in _BLOCKS:
        plan = Plan(number=number)
        with socket.socket() as guard:
            try:
                guard.bind((f"{plan.block}1", HBONE_PORT))
            except OSError:
                continue
            if not any(probe_address(host, port) for host, port in plan.places):
                yield plan
                return
    raise InUseError(f"no free loopback addresses in 127.0.{_BLOCKS.start}.0 to 127.0.{_BLOCKS.stop - 1}.0")


def write_manifests(plan: Plan, folder: Path) -> None:
    """Write the manifests of this mesh into a folder."""
    for source in files("meshgw.demo").joinpath("manifests").iterdir():
        if source.name.endswith(".yaml"):
            (folder / source.name).write_text(plan.manifest(source.read_text()))
