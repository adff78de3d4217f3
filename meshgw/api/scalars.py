r"""Scalar types of the Kubernetes APIs, with the limits their schemas state.

The limits are checked while decoding; a value built in Python is taken as it is.
Patterns end in ``\Z`` because Python's ``$`` also matches before a final newline.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta

_LABEL: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"

SUBDOMAIN_PATTERN: Final = rf"^{_SUBDOMAIN}\Z"
LABEL_PATTERN: Final = rf"^{_LABEL}\Z"
MAYBE_LABEL_PATTERN: Final = rf"^({_LABEL})?\Z"
HOSTNAME_PATTERN: Final = rf"^(\*\.)?{_SUBDOMAIN}\Z"
GROUP_PATTERN: Final = rf"^({_SUBDOMAIN})?\Z"
KIND_PATTERN: Final = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?\Z"
HEADER_NAME_PATTERN: Final = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+\Z"
HEADER_VALUE_PATTERN: Final = r"^[!-~]+([\t ]?[!-~]+)*\Z"
DURATION_PATTERN: Final = r"^([0-9]{1,5}(h|m|s|ms)){1,4}\Z"
CONTROLLER_PATTERN: Final = rf"^{_SUBDOMAIN}/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+\Z"
PROTOCOL_PATTERN: Final = rf"^([a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?|{_SUBDOMAIN}/[A-Za-z0-9]+)\Z"
ADDRESS_TYPE_PATTERN: Final = rf"^(Hostname|IPAddress|NamedAddress|{_SUBDOMAIN}/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+)\Z"
LABEL_VALUE_PATTERN: Final = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z"
ORIGIN_PATTERN: Final = r"^(\*|https?://((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9\-]+|\*)(:[0-9]{1,5})?)\Z"
PATH_PATTERN: Final = r"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+\Z"
WELL_KNOWN_CA_PATTERN: Final = rf"^(System|({_SUBDOMAIN}/)?([A-Za-z0-9][-A-Za-z0-9_.]{{0,61}})?[A-Za-z0-9])\Z"
URI_PATTERN: Final = r"^[^:/?#]+://[^/?#\s]*[^?#\s]*(\?[^#\s]*)?(#\S*)?\Z"

PATTERN_NAMES: Final = {
    SUBDOMAIN_PATTERN: "a lower-case DNS name",
    LABEL_PATTERN: "a lower-case DNS label",
    MAYBE_LABEL_PATTERN: "a lower-case DNS label",
    HOSTNAME_PATTERN: "a lower-case host name, optionally with a leading `*.`",
    GROUP_PATTERN: "an API group: empty or a lower-case DNS name",
    KIND_PATTERN: "a kind: letters, digits and dashes",
    HEADER_NAME_PATTERN: "a header name",
    HEADER_VALUE_PATTERN: "a header value: printable ASCII without blanks at its ends",
    DURATION_PATTERN: "a duration such as `1h30m`, `10s` or `500ms`",
    CONTROLLER_PATTERN: "a controller name such as `example.com/gateway`",
    PROTOCOL_PATTERN: "a protocol name",
    ADDRESS_TYPE_PATTERN: "an address type: `IPAddress`, `Hostname`, `NamedAddress` or `domain/name`",
    LABEL_VALUE_PATTERN: "a label value",
    ORIGIN_PATTERN: "an origin such as `https://example.com`, `https://*.example.com` or `*`",
    PATH_PATTERN: "a URL path",
    WELL_KNOWN_CA_PATTERN: "`System` or a domain-prefixed name",
    URI_PATTERN: "an absolute URI",
}
"""What each pattern means, for error messages."""

PortNumber = Annotated[int, Meta(ge=1, le=65535)]
Weight = Annotated[int, Meta(ge=0, le=1_000_000)]
Subdomain = Annotated[str, Meta(pattern=SUBDOMAIN_PATTERN, max_length=253)]
MaybeNamespace = Annotated[str, Meta(pattern=MAYBE_LABEL_PATTERN, max_length=63)]
NamespaceName = Annotated[str, Meta(pattern=LABEL_PATTERN, max_length=63)]
SectionName = Subdomain
ObjectName = Annotated[str, Meta(min_length=1, max_length=253)]
Group = Annotated[str, Meta(pattern=GROUP_PATTERN, max_length=253)]
KindName = Annotated[str, Meta(pattern=KIND_PATTERN, max_length=63)]
Hostname = Annotated[str, Meta(pattern=HOSTNAME_PATTERN, max_length=253)]
PreciseHostname = Subdomain
HeaderName = Annotated[str, Meta(pattern=HEADER_NAME_PATTERN, max_length=256)]
HeaderValue = Annotated[str, Meta(pattern=HEADER_VALUE_PATTERN, max_length=4096)]
Duration = Annotated[str, Meta(pattern=DURATION_PATTERN)]
OptionValue = Annotated[str, Meta(max_length=4096)]
LabelValue = Annotated[str, Meta(pattern=LABEL_VALUE_PATTERN, max_length=63)]
HTTPMethod = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
GatewayDefaultScope = Literal["All", "None"]


def printable(text: str) -> str:
    """The text as one line, whatever a document says: control characters are escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
