"""What the demo's mesh consists of and where it is: the same on every machine but for addresses and ports."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from meshgw.api.meta import Key
from meshgw.names import DEFAULT_TRUST_DOMAIN, HBONE_PORT
from meshgw.standalone.lock import InUseError, Lock, claim_address, probe_address

NAMESPACE: Final = "shop"
WAYPOINT: Final = Key(NAMESPACE, "waypoint")
APP_PORT: Final = 8080
ROUTE_FILE: Final = "route.yaml"

_BLOCK: Final = "127.0.15."
"""The addresses in the manifests as they are shipped."""
_BLOCKS: Final = tuple(f"127.0.{number}." for number in range(15, 255))
_PORTS: Final = range(18081, 18999)
"""Below the ports that Linux gives to outgoing connections."""
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
    """One mesh on one block of loopback addresses."""

    block: str
    ports: tuple[int, int, int, int]
    trust_domain: str = DEFAULT_TRUST_DOMAIN

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
        return self._client("frontend", "frontend", self.ports[0], _SHOP_VIP)

    @property
    def stranger(self) -> Client:
        """The client that may not."""
        return self._client("stranger", "stranger", self.ports[1], _SHOP_VIP)

    @property
    def bookkeeper(self) -> Client:
        """The frontend again, on its way to the ledger."""
        return self._client("bookkeeper", "frontend", self.ports[2], _LEDGER_VIP)

    @property
    def bypass(self) -> Client:
        """The frontend again, on its way to a Pod without the waypoint."""
        pod = self.workloads[0]
        return Client(
            name="bypass",
            account="frontend",
            port=self.ports[3],
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

    def _client(self, name: str, account: str, port: int, authority: str) -> Client:
        return Client(name=name, account=account, port=port, authority=authority, via=self.waypoint, peer=WAYPOINT.name)


class Claim:
    """A plan whose addresses and ports nobody else has while this is entered; raises InUseError if none are free."""

    def __init__(self) -> None:
        self._locks: list[Lock] = []

    def __enter__(self) -> Plan:
        """Find a free block and free ports."""
        try:
            block = self._claim_block()
            ports = self._claim_ports()
            return Plan(block=block, ports=(next(ports), next(ports), next(ports), next(ports)))
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        """Give all of it back."""
        for lock in self._locks:
            lock.release()
        self._locks.clear()

    def _claim_block(self) -> str:
        for block in _BLOCKS:
            try:
                lock = claim_address(f"{block}1", HBONE_PORT)
            except InUseError:
                continue
            self._locks.append(lock)
            plan = Plan(block=block, ports=(0, 0, 0, 0))
            if not any(probe_address(*place) for place in _listening(plan)):
                return block
        raise InUseError(f"no free loopback addresses in {_BLOCKS[0]}0 to {_BLOCKS[-1]}0; stop other demos")

    def _claim_ports(self) -> Iterator[int]:
        for port in _PORTS:
            try:
                self._locks.append(claim_address("127.0.0.1", port))
            except InUseError:
                continue
            yield port
        raise InUseError(f"no free ports on 127.0.0.1 from {_PORTS.start} to {_PORTS.stop}; stop other demos")


def write_manifests(plan: Plan, folder: Path) -> None:
    """Write the manifests of this mesh into a folder."""
    for source in files("meshgw.demo").joinpath("manifests").iterdir():
        if source.name.endswith(".yaml"):
            (folder / source.name).write_text(plan.manifest(source.read_text()))


def _listening(plan: Plan) -> list[tuple[str, int]]:
    places = [(plan.waypoint, HBONE_PORT)]
    for workload in plan.workloads:
        places += [(workload.address, HBONE_PORT), (workload.address, APP_PORT)]
    return places
