"""What the identity tests share: a clock that never waits by itself, a CA that answers from a script, observers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from meshgw.identity.protocol import METHOD, SERVICE
from meshgw.identity.spiffe import SpiffeId

GATEWAY = SpiffeId(trust_domain="cluster.local", namespace="edge", service_account="gateway")
OTHER = SpiffeId(trust_domain="cluster.local", namespace="edge", service_account="other")


class FakeClock:
    """A clock that moves only by `advance`, or with `runs_ahead` by every sleep at once."""

    def __init__(self, *, runs_ahead: bool = False, jitter: float = 0.0) -> None:
        self.time = datetime.now(UTC).replace(microsecond=0)
        self.chance = jitter
        self.slept: list[float] = []
        self._runs_ahead = runs_ahead
        self._sleepers: list[tuple[datetime, asyncio.Future[None]]] = []
        self._changed = asyncio.Condition()

    def now(self) -> datetime:
        return self.time

    def jitter(self) -> float:
        return self.chance

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self._runs_ahead:
            self.time += timedelta(seconds=seconds)
            await asyncio.sleep(0)
            return
        sleeper = (self.time + timedelta(seconds=seconds), asyncio.get_running_loop().create_future())
        self._sleepers.append(sleeper)
        async with self._changed:
            self._changed.notify_all()
        try:
            await sleeper[1]
        finally:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)

    async def asleep(self, count: int = 1) -> None:
        """Return once `count` tasks sleep."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: len(self._sleepers) >= count)

    async def advance(self, seconds: float, *, asleep: int = 1) -> None:
        """Let `seconds` pass, waking each sleeper at its time; `asleep` tasks sleep before each step and after."""
        end = self.time + timedelta(seconds=seconds)
        for _ in range(1000):
            await self.asleep(asleep)
            due = min(self._sleepers, key=lambda sleeper: sleeper[0])
            if due[0] > end:
                self.time = end
                return
            self.time = max(self.time, due[0])
            self._sleepers.remove(due)
            due[1].set_result(None)
        raise AssertionError("too many steps")


class RecordingObserver:
    """Every event in order."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def certificate_expires(self, identity: SpiffeId, at: float) -> None:
        self.events.append(("expires", identity, at))

    def certificate_rotated(self, identity: SpiffeId) -> None:
        self.events.append(("rotated", identity))

    def rotation_failed(self, identity: SpiffeId, code: str) -> None:
        self.events.append(("failed", identity, code))

    def identity_removed(self, identity: SpiffeId) -> None:
        self.events.append(("removed", identity))


class ScriptedCa:
    """A CA that answers with the next of `script`: a status code or ready bytes; the last one repeats."""

    def __init__(self, script: Sequence[grpc.StatusCode | bytes], details: str = "") -> None:
        self.script = list(script)
        self.details = details
        self.address = ""
        self.metadata: list[dict[str, str | bytes]] = []
        self.requests: list[bytes] = []
        self.peers: list[str] = []

    async def answer(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        self.requests.append(request)
        self.peers.append(context.peer())
        self.metadata.append(dict(context.invocation_metadata() or ()))
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if not isinstance(step, bytes):
            await context.abort(step, self.details)
        return step


@asynccontextmanager
async def scripted_ca(script: Sequence[grpc.StatusCode | bytes], details: str = "") -> AsyncIterator[ScriptedCa]:
    ca = ScriptedCa(script, details)
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(ca.answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    ca.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield ca
    finally:
        await server.stop(grace=None)


TOKEN = "aaa.bbb.ccc"


async def token(identity: SpiffeId) -> str:
    return TOKEN


def leaf_of(pem: bytes | str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode() if isinstance(pem, str) else pem)


def uris_of(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def as_p256(key: object) -> ec.EllipticCurvePrivateKey:
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
