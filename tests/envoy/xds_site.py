"""An xDS server as it is in a cluster, by TLS and with tokens, and real Envoys with the bootstrap of a cluster."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from meshgw.api.meta import Key
from meshgw.cluster.authenticate import authorize_owners
from meshgw.cluster.roots import Served
from meshgw.emit.bootstrap import Bootstrap, build_bootstrap
from meshgw.emit.proxy_xds import XdsCredentials, secret_files
from meshgw.emit.resource import Resource
from meshgw.xds.proxy import Account, Limits, Peer, ProxyState, Refused
from meshgw.xds.transport import tls_credentials
from tests.rig.certs import CertificateAuthority, Leaf
from tests.rig.envoy import RunningEnvoy, run_static
from tests.unit.xds.peers import NAME, Recorder, serving

GATEWAY = Key("default", "gw")
GROUP = str(GATEWAY)
ACCOUNT = "gw-meshgw"

Changes = Mapping[tuple[str, str], Resource | None]


class Counting(Recorder):
    """Also counts ACKs, by type."""

    def __init__(self) -> None:
        super().__init__()
        self.acks: Counter[str] = Counter()

    def acked(self, group: str, type_url: str, seconds: float) -> None:
        super().acked(group, type_url, seconds)
        self.acks[type_url] += 1


class XdsSite:
    """A server of one Gateway's configuration; tokens are `<service account>:<pod>`."""

    def __init__(self, folder: Path, ca: CertificateAuthority) -> None:
        self.recorder = Counting()
        self.peers: list[Peer] = []
        """Of each stream that was let in, in order."""
        self.states: dict[int, ProxyState] = {}
        """By stream, the last of it."""
        self.shown: list[int] = []
        """Serial numbers of the certificates of all handshakes."""
        self.leaf: Leaf
        self._folder, self._ca = folder, ca
        self._envoys = 0
        self.renew()

    def renew(self) -> None:
        """Have a new certificate."""
        self.leaf = self._ca.issue(NAME)

    def show(self, served: Served) -> None:
        """Have this certificate."""
        self.leaf = Leaf(served.chain, served.key.reveal(), served.trust)

    @contextlib.asynccontextmanager
    async def run(self, **limits: Any) -> AsyncIterator[XdsSite]:
        """Serve until the block ends."""
        async with serving(
            listen="0.0.0.0:0",
            credentials=tls_credentials(self._present),
            authenticate=self._authenticate,
            authorize=authorize_owners(lambda _namespace, name: GATEWAY if name == ACCOUNT else None),
            limits=Limits(**limits),
            observer=self.recorder,
            on_proxy=self._note,
        ) as server:
            self.server = server
            yield self

    def publish(self, changes: Changes) -> None:
        """Have the Gateway's configuration change."""
        self.server.publish(GROUP, changes, ready=True)

    def pushes(self) -> Counter[str]:
        """Return the number of resources sent so far, by the last word of their type."""
        counted: Counter[str] = Counter()
        for kind, *rest in self.recorder.told:
            if kind == "pushed":
                counted[rest[1].rpartition(".")[2]] += rest[3]
        return counted

    @contextlib.asynccontextmanager
    async def envoy(
        self,
        *,
        account: str = ACCOUNT,
        pod: str = "",
        token: str = "",
        roots: bytes = b"",
        node_id: str = "",
        **options: Any,
    ) -> AsyncIterator[RunningEnvoy]:
        """Run a proxy: by default one that is let in."""
        self._envoys += 1
        folder = self._folder / f"envoy-{self._envoys}"
        pod = pod or f"{ACCOUNT}-{self._envoys}"
        credentials = XdsCredentials(server_name=NAME, folder=str(folder), token_folder=str(folder))
        folder.mkdir()
        files = {"ca.crt": (roots or self._ca.root).decode(), "token": token or f"{account}:{pod}"}
        for name, text in {**files, **secret_files(credentials)}.items():
            (folder / name).write_text(text)
        port = self.server.address.rpartition(":")[2]
        bootstrap = Bootstrap(
            node_id=node_id or f"{GROUP}/{pod}",
            cluster=GROUP,
            xds=f"127.0.0.1:{port}",
            admin="127.0.0.1:0",
            credentials=credentials,
        )
        async with run_static(build_bootstrap(bootstrap), **options) as running:
            yield running

    def _present(self) -> tuple[bytes, bytes]:
        self.shown.append(self.leaf.serial)
        return self.leaf.key, self.leaf.chain

    async def _authenticate(self, peer: Peer) -> Peer | Refused:
        account, _, pod = peer.headers.get("authorization", "").removeprefix("Bearer ").partition(":")
        if not pod:
            return Refused("no token", "UNAUTHENTICATED")
        proven = Account(namespace=GATEWAY.namespace, service_account=account, pod=pod, pod_uid=pod)
        self.peers.append(replace(peer, account=proven))
        return self.peers[-1]

    def _note(self, state: ProxyState) -> None:
        self.states[state.proxy] = state


def resident_bytes(pid: int | None = None) -> int:
    """Return the memory a process (this one) has in RAM."""
    pages = Path(f"/proc/{pid or os.getpid()}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
