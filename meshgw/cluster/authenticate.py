"""Which pod a proxy is, by the token of its ServiceAccount, and whose configuration that pod gets.

The API server alone decides what a token proves. Its answers are remembered for a short while, by a digest of the
token; the tokens themselves are neither kept nor shown.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from meshgw.api.meta import Key
from meshgw.kube.client import AccessError, ApiError, Client, resource_path
from meshgw.observe.log import get_logger
from meshgw.xds.admission import CREDENTIAL
from meshgw.xds.pace import Pace
from meshgw.xds.proxy import Account, Authorize, Peer, Refused

AUDIENCE: Final = "meshgw"
"""Whom a proxy's token must be for."""
REMEMBERED: Final = 60.0
"""Seconds that a token which the API server accepted is not shown to it again."""
REFUSAL_REMEMBERED: Final = 5.0
"""Seconds that a token which the API server refused is not shown to it again."""
FORGIVEN: Final = 60.0
"""Seconds for which an accepted token holds at least: the API server forgives clocks as much."""

_PATH: Final = resource_path("authentication.k8s.io/v1", "tokenreviews")
_SCHEME: Final = "bearer "
_USER: Final = "system:serviceaccount:"
_POD_NAME: Final = "authentication.kubernetes.io/pod-name"
_POD_UID: Final = "authentication.kubernetes.io/pod-uid"
_LONGEST: Final = 16 * 1024
_TIMEOUT: Final = 8.0

_log = get_logger("xds")


class ReviewObserver(Protocol):
    """Receiver of what became of tokens; its methods return at once and never raise."""

    def token_reviewed(self, outcome: str) -> None:
        """A token was `accepted`, `refused`, `remembered` (either way), or the API server was `unavailable`."""


class TokenReviewer:
    """Asks the API server who a peer is: the `Authenticate` of an xDS server in a cluster."""

    def __init__(
        self,
        client: Client,
        *,
        audience: str = AUDIENCE,
        observer: ReviewObserver | None = None,
        at_once: int = 16,
        capacity: int = 4096,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._audience = audience
        self._observer = observer
        self._turns = asyncio.Semaphore(at_once)
        self._clock = clock
        self._wall_clock = wall_clock
        self._accepted = _Memory(capacity)
        self._refused = _Memory(capacity)  # apart, so that made-up tokens drive no real ones out
        self._under_way: dict[bytes, asyncio.Future[_Verdict | None]] = {}
        self._told = Pace(rate=0.2, burst=20.0, now=clock())

    async def __call__(self, peer: Peer) -> Peer | Refused:
        """The peer with the account its token proves; a refusal is `UNAUTHENTICATED`, or `UNAVAILABLE` for now."""
        token = _bearer(peer.headers.get(CREDENTIAL, ""))
        if not token:
            return _denied("no bearer token")
        expiry = _expiry(token)
        if expiry is None:
            return _denied("the token is not a ServiceAccount's")
        verdict = await self._verdict(token, expiry)
        if isinstance(verdict.outcome, Refused):
            return verdict.outcome
        return replace(peer, account=verdict.outcome, proven_for=max(FORGIVEN, expiry - self._wall_clock()))

    async def _verdict(self, token: str, expiry: float) -> _Verdict:
        digest = hashlib.sha256(token.encode()).digest()
        while True:
            now = self._clock()
            if known := self._accepted.get(digest, now) or self._refused.get(digest, now):
                self._note("remembered")
                return known
            under_way = self._under_way.get(digest)
            if under_way is None:
                return await self._lead(digest, token, expiry)
            if verdict := await asyncio.shield(under_way):
                return verdict
            # Whose review it was went away before it ended.

    async def _lead(self, digest: bytes, token: str, expiry: float) -> _Verdict:
        """Have the token reviewed, also for those who ask meanwhile."""
        under_way = self._under_way[digest] = asyncio.get_running_loop().create_future()
        verdict: _Verdict | None = None
        try:
            async with self._turns:
                outcome = await self._review(token)
            now = self._clock()
            if isinstance(outcome, Account):
                verdict = _Verdict(outcome, now + min(REMEMBERED, expiry - self._wall_clock()))
                self._accepted.put(digest, verdict)
            else:
                verdict = _Verdict(outcome, now + REFUSAL_REMEMBERED)
                if outcome.code == "UNAUTHENTICATED":
                    self._refused.put(digest, verdict)
            return verdict
        finally:
            del self._under_way[digest]
            under_way.set_result(verdict)

    async def _review(self, token: str) -> Account | Refused:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        try:
            answer = await self._client.request("POST", _PATH, body=msgspec.json.encode(review), timeout=_TIMEOUT)
            status = msgspec.json.decode(answer, type=_Review).status
        except (ApiError, AccessError, ConnectionError, TimeoutError, msgspec.MsgspecError) as error:
            self._note("unavailable")
            self._tell("tokens cannot be reviewed", str(error).replace(token, "(token)"))
            return Refused("the API server cannot be asked about the token", "UNAVAILABLE")
        outcome = _judge(status, self._audience)
        if isinstance(outcome, Refused):
            self._note("refused")
            self._tell(outcome.reason, status.error.replace(token, "(token)"))
        else:
            self._note("accepted")
        return outcome

    def _note(self, outcome: str) -> None:
        if self._observer is not None:
            self._observer.token_reviewed(outcome)

    def _tell(self, event: str, error: str) -> None:
        if self._told.allows(self._clock()):
            _log.warning(event, error=error)


def authorize_owners(gateway_of: Callable[[str, str], Key | None]) -> Authorize:
    """The `Authorize` of an xDS server in a cluster: a pod gets the configuration of the Gateway it belongs to.

    `gateway_of` has the Gateway whose proxies run as a ServiceAccount, by namespace and name; None if it is none of
    ours (any more). The node id must agree with what the token proved, `<namespace>/<gateway>/<pod>`.
    """

    def authorize(peer: Peer, node_id: str, _metadata: Mapping[str, object]) -> str | Refused:
        account = peer.account
        if account is None:
            return _denied("the peer has not proven who it is")
        gateway = gateway_of(account.namespace, account.service_account)
        if gateway is None or gateway.namespace != account.namespace:
            return Refused(f"{account.namespace}/{account.service_account} is the ServiceAccount of no Gateway here")
        if node_id != f"{gateway.namespace}/{gateway.name}/{account.pod}":
            return Refused("the node id is not that of the pod the token belongs to")
        return str(gateway)

    return authorize


class _User(msgspec.Struct, frozen=True):
    username: str = ""
    extra: Mapping[str, tuple[str, ...]] = {}


class _Status(msgspec.Struct, frozen=True):
    authenticated: bool = False
    user: _User = _User()
    audiences: tuple[str, ...] = ()
    error: str = ""


class _Review(msgspec.Struct, frozen=True):
    status: _Status


class _Claims(msgspec.Struct, frozen=True):
    """What is read of a token before it is trusted; nothing is believed for it but that it ends."""

    exp: float


class _Verdict(msgspec.Struct, frozen=True):
    outcome: Account | Refused
    until: float


class _Memory:
    """The newest verdicts by digest; the one that was not asked for the longest goes first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._verdicts: OrderedDict[bytes, _Verdict] = OrderedDict()

    def get(self, digest: bytes, now: float) -> _Verdict | None:
        verdict = self._verdicts.get(digest)
        if verdict is None:
            return None
        if verdict.until <= now:
            del self._verdicts[digest]
            return None
        self._verdicts.move_to_end(digest)
        return verdict

    def put(self, digest: bytes, verdict: _Verdict) -> None:
        self._verdicts[digest] = verdict
        while len(self._verdicts) > self._capacity:
            self._verdicts.popitem(last=False)


def _judge(status: _Status, audience: str) -> Account | Refused:
    if not status.authenticated:
        return _denied("the API server does not accept the token")
    if audience not in status.audiences:  # an API server that knows no audiences says nothing of them
        return _denied("the token is not for this audience")
    if not status.user.username.startswith(_USER):
        return _denied("the token is not a ServiceAccount's")
    namespace, _, name = status.user.username.removeprefix(_USER).partition(":")
    pods, uids = (status.user.extra.get(key, ()) for key in (_POD_NAME, _POD_UID))
    if not namespace or not name or len(pods) != 1 or len(uids) != 1:
        return _denied("the token belongs to no pod")
    return Account(namespace=namespace, service_account=name, pod=pods[0], pod_uid=uids[0])


def _bearer(credential: str) -> str:
    """The token of an authorization header, empty if there is none or it is not credible that it is one."""
    if credential[: len(_SCHEME)].lower() != _SCHEME or len(credential) > _LONGEST:
        return ""
    return credential[len(_SCHEME) :].strip()


def _expiry(token: str) -> float | None:
    """When a token says that it ends, in Unix seconds; None if it is no token that could have been issued to a pod."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        body = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(body, type=_Claims).exp
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return None


def _denied(reason: str) -> Refused:
    return Refused(reason, "UNAUTHENTICATED")
