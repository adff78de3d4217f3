"""Compiled routes: rules, matches, filters. Independent of the listeners they attach to."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from meshgw.api.gateway import ParentReference
from meshgw.api.meta import Key
from meshgw.ir.finding import Finding
from meshgw.ir.keys import BackendTarget, ListenerKey, RouteKey


class PathKind(StrEnum):
    """How a path is matched."""

    EXACT = "exact"
    PREFIX = "prefix"
    """Per path segment: /a matches /a and /a/b, not /ab."""
    REGEX = "regex"


class PathMatch(msgspec.Struct, frozen=True):
    """A path condition. Regexes have passed RE2 with Envoy's program size limit and match the whole path."""

    kind: PathKind = PathKind.PREFIX
    value: str = "/"


class ValueMatch(msgspec.Struct, frozen=True):
    """A header or query parameter condition; header names are lower case."""

    name: str
    value: str
    regex: bool = False


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """All conditions hold together. `precedence` sorts matches of different routes, smallest first."""

    path: PathMatch = PathMatch()
    method: str = ""
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()
    grpc: bool = False
    """Only requests with a gRPC content type."""
    precedence: tuple[int, ...] = ()


class HeaderEdit(msgspec.Struct, frozen=True, kw_only=True):
    """Header changes in the order set, add, remove."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


class PathEdit(msgspec.Struct, frozen=True):
    """A new path: the whole of it, or the matched prefix of it (`prefix`)."""

    value: str
    prefix: bool = False


class Redirect(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that sends the client elsewhere; empty and 0 leave that part as it is."""

    scheme: str = ""
    hostname: str = ""
    port: int = 0
    path: PathEdit | None = None
    status: int = 302


class Rewrite(msgspec.Struct, frozen=True, kw_only=True):
    """What the backend sees instead of the client's host and path."""

    hostname: str = ""
    path: PathEdit | None = None


class Cors(msgspec.Struct, frozen=True, kw_only=True):
    """Cross-origin answers (GEP-1767); "*" stands for any."""

    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int = 5
    """Seconds."""


class Mirror(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of `numerator` in `denominator` requests."""

    target: BackendTarget
    numerator: int = 100
    denominator: int = 100


class ExternalAuth(msgspec.Struct, frozen=True, kw_only=True):
    """A service asked before each request (GEP-1494)."""

    target: BackendTarget
    grpc: bool
    path: str = ""
    request_headers: tuple[str, ...] = ()
    response_headers: tuple[str, ...] = ()
    max_body: int = 0


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to a request of a rule, or of one backend of it."""

    request: HeaderEdit | None = None
    response: HeaderEdit | None = None
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    cors: Cors | None = None
    mirrors: tuple[Mirror, ...] = ()
    external_auth: ExternalAuth | None = None


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """One weighted destination; a `target` of None answers 500 for its share."""

    target: BackendTarget | None
    weight: int = 1
    filters: Filters | None = None


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Retries of a rule (GEP-1731); `codes` are HTTP statuses, `backoff` is in milliseconds (0 = Envoy's own)."""

    attempts: int = 1
    codes: tuple[int, ...] = ()
    backoff: int = 0


class SessionPersistence(msgspec.Struct, frozen=True, kw_only=True):
    """Sticky sessions (GEP-1619): by cookie or header; `lifetime` in seconds, 0 for a session cookie."""

    name: str
    header: bool = False
    lifetime: int = 0
    path: str = "/"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule. A rule with an `error` answers 500 whatever its backends are."""

    matches: tuple[Match, ...] = ()
    filters: Filters = Filters()
    backends: tuple[Backend, ...] = ()
    timeout: int | None = None
    """Whole request, milliseconds; 0 disables, None leaves it unlimited."""
    backend_timeout: int | None = None
    """One try, milliseconds."""
    retry: Retry | None = None
    session: SessionPersistence | None = None
    name: str = ""
    error: str = ""


class RefsReason(StrEnum):
    """Reasons of a route's ResolvedRefs condition, in the order in which the first bad one is reported."""

    RESOLVED = "ResolvedRefs"
    INVALID_KIND = "InvalidKind"
    NOT_PERMITTED = "RefNotPermitted"
    NOT_FOUND = "BackendNotFound"
    UNSUPPORTED_PROTOCOL = "UnsupportedProtocol"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled route of any kind; L4 kinds have one rule without matches.

    `created` is the creation timestamp as the API words it ("" sorts first), the first tie-break between equal matches.
    """

    key: RouteKey
    rules: tuple[Rule, ...] = ()
    created: str = ""
    refs: RefsReason = RefsReason.RESOLVED
    refs_message: str = ""
    partially_invalid: str = ""
    """Message when some rules cannot be served and others are."""
    invalid: str = ""
    """Message when no rule can be served: the route as a whole is not Accepted (reason UnsupportedValue)."""
    findings: tuple[Finding, ...] = ()


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A route accepted on a listener, or on a service port behind a waypoint, with the host names that remain."""

    route: RouteKey
    listener: ListenerKey
    hostnames: tuple[str, ...] = ()
    """Intersection of the route's and the listener's; ("",) for every host."""


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one parentRef of a route that names a Gateway, ListenerSet or waypoint-bound Service of ours.

    `reason` is a reason of the Accepted condition; `listeners` is empty unless it is "Accepted".
    """

    route: RouteKey
    gateway: Key
    reason: str
    message: str = ""
    listeners: tuple[tuple[ListenerKey, tuple[str, ...]], ...] = ()
    """Listener and the host names that remain on it."""
    ref: ParentReference
    """Verbatim, for the status."""
    generation: int = 0
    findings: tuple[Finding, ...] = ()


class HostKind(StrEnum):
    """Why a virtual host is there."""

    ROUTE = "route"
    EMPTY = "empty"
    """The listener owns this host: without routes it answers 404."""
    MISDIRECTED = "misdirected"
    """Another listener of the port owns it: 421."""
    DEFAULT = "default"
    """A service port behind a waypoint without routes: straight to the service."""


class HostEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A claim of one route (or listener) on one domain of a RouteConfiguration."""

    kind: HostKind
    port: int
    """The port clients see, for redirects."""
    https: bool = False
    target: BackendTarget | None = None
    """Of a DEFAULT entry."""


class L4Chain(msgspec.Struct, frozen=True, kw_only=True):
    """Connections of these server names ("" = any) go to these backends; no usable backend closes them."""

    route: RouteKey
    server_names: tuple[str, ...] = ()
    backends: tuple[Backend, ...] = ()


class L4Binding(msgspec.Struct, frozen=True, kw_only=True):
    """What a TLS, TCP or UDP listener forwards; chains have distinct server names, the oldest route won."""

    listener: ListenerKey
    chains: tuple[L4Chain, ...] = ()
