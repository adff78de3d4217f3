"""The one message of ours that envoy-data-plane leaves out, in its own codec: `xds/type/matcher/v3/ip.proto`."""

import betterproto2
from envoy_data_plane.message_pool import default_message_pool
from envoy_data_plane.xds.core.v3 import CidrRange
from envoy_data_plane.xds.type.matcher.v3 import MatcherOnMatch
from pydantic.dataclasses import dataclass


@dataclass(eq=False, repr=False)
class IpRangeMatcher(betterproto2.Message):
    """`IPMatcher.IPRangeMatcher`."""

    ranges: list[CidrRange] = betterproto2.field(1, betterproto2.TYPE_MESSAGE, repeated=True)
    on_match: MatcherOnMatch | None = betterproto2.field(2, betterproto2.TYPE_MESSAGE, optional=True)
    exclusive: bool = betterproto2.field(3, betterproto2.TYPE_BOOL)


@dataclass(eq=False, repr=False)
class IpMatcher(betterproto2.Message):
    """`IPMatcher`."""

    range_matchers: list[IpRangeMatcher] = betterproto2.field(1, betterproto2.TYPE_MESSAGE, repeated=True)


default_message_pool.register_message("xds.type.matcher.v3", "IPMatcher", IpMatcher)
