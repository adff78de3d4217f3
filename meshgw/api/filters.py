"""Gateway API v1.6.1: the filters and rule settings that HTTPRoute and GRPCRoute share."""

from typing import Annotated, Literal

from msgspec import Meta

from meshgw.api.gateway import BackendObjectReference
from meshgw.api.meta import ApiStruct
from meshgw.api.scalars import Duration, HeaderName, HeaderValue


class HTTPHeader(ApiStruct, frozen=True, kw_only=True):
    """A header and its value."""

    name: HeaderName
    value: HeaderValue


class HTTPHeaderFilter(ApiStruct, frozen=True, kw_only=True):
    """Headers to set, to add and to remove, in that order."""

    set: tuple[HTTPHeader, ...] = ()
    add: tuple[HTTPHeader, ...] = ()
    remove: tuple[str, ...] = ()


class Fraction(ApiStruct, frozen=True, kw_only=True):
    """A share of the requests: ``numerator`` of ``denominator``."""

    numerator: Annotated[int, Meta(ge=0, le=2_147_483_647)]
    denominator: Annotated[int, Meta(ge=1, le=2_147_483_647)] = 100


class HTTPRequestMirrorFilter(ApiStruct, frozen=True, kw_only=True):
    """A backend that gets copies of requests: all, unless ``percent`` or ``fraction`` is set."""

    backend_ref: BackendObjectReference
    percent: Annotated[int, Meta(ge=0, le=100)] | None = None
    fraction: Fraction | None = None


class CookieConfig(ApiStruct, frozen=True, kw_only=True):
    """Lifetime of a session cookie."""

    lifetime_type: Literal["Permanent", "Session"] = "Session"


class SessionPersistence(ApiStruct, frozen=True, kw_only=True):
    """Keeps a client at one backend (GEP-1619)."""

    session_name: Annotated[str, Meta(max_length=128)] | None = None
    absolute_timeout: Duration | None = None
    type: Literal["Cookie", "Header"] = "Cookie"
    cookie_config: CookieConfig | None = None
