from __future__ import annotations

import re

import pytest

from meshgw.api import scalars

ACCEPTED = {
    scalars.SUBDOMAIN_PATTERN: ["a", "a-b.c1", "1.2"],
    scalars.LABEL_PATTERN: ["a", "a-b", "1"],
    scalars.MAYBE_LABEL_PATTERN: ["", "a-b"],
    scalars.HOSTNAME_PATTERN: ["a.b", "*.a.b"],
    scalars.GROUP_PATTERN: ["", "apps", "gateway.networking.k8s.io"],
    scalars.KIND_PATTERN: ["Service", "a1-b"],
    scalars.HEADER_NAME_PATTERN: ["x-a", "X_a.b", ":".replace(":", "~")],
    scalars.HEADER_VALUE_PATTERN: ["a", "a b", "a\tb", "!~"],
    scalars.DURATION_PATTERN: ["0s", "1h30m", "500ms", "1h1m1s1ms"],
    scalars.CONTROLLER_PATTERN: ["example.com/gateway", "a/b/c"],
    scalars.PROTOCOL_PATTERN: ["HTTP", "example.com/bar", "a-b"],
    scalars.ADDRESS_TYPE_PATTERN: ["IPAddress", "Hostname", "NamedAddress", "example.com/x"],
    scalars.LABEL_VALUE_PATTERN: ["", "a", "A_b.c-d"],
    scalars.ORIGIN_PATTERN: ["*", "https://a.b", "http://*.a.b:8080", "https://*:1"],
    scalars.PATH_PATTERN: ["/a", "/%2f", "/a;b=c"],
    scalars.WELL_KNOWN_CA_PATTERN: ["System", "example.com/x"],
    scalars.URI_PATTERN: ["spiffe://a/b", "https://a/b?c#d"],
}
REFUSED = {
    scalars.SUBDOMAIN_PATTERN: ["", "A", "-a", "a.", "a/b", "a\n"],
    scalars.LABEL_PATTERN: ["", "a.b", "a-"],
    scalars.MAYBE_LABEL_PATTERN: ["a.b", "A"],
    scalars.HOSTNAME_PATTERN: ["*", "a.*", "*a.b", "a b", "a:80"],
    scalars.GROUP_PATTERN: ["A", "a/b"],
    scalars.KIND_PATTERN: ["", "1a", "a b"],
    scalars.HEADER_NAME_PATTERN: ["", "a b", "a:", "a\r\nb"],
    scalars.HEADER_VALUE_PATTERN: ["", " a", "a ", "a\nb", "a\n"],
    scalars.DURATION_PATTERN: ["", "1", "1d", "1.5s", "100000s", "1s1s1s1s1s"],
    scalars.CONTROLLER_PATTERN: ["a", "/b", "A/b", "a/"],
    scalars.PROTOCOL_PATTERN: ["", "a b", "/a"],
    scalars.ADDRESS_TYPE_PATTERN: ["Other", "IPAddressX"],
    scalars.LABEL_VALUE_PATTERN: ["-a", "a b", "a/b"],
    scalars.ORIGIN_PATTERN: ["", "a.b", "https://", "https://a/b", "**"],
    scalars.PATH_PATTERN: ["", "/a b", "/%2", "/?a"],
    scalars.WELL_KNOWN_CA_PATTERN: ["", "a b", "/x"],
    scalars.URI_PATTERN: ["", "a", "//a", "a://b c"],
}


@pytest.mark.parametrize("pattern", scalars.PATTERN_NAMES)
def test_a_pattern_accepts_and_refuses(pattern: str) -> None:
    assert [text for text in ACCEPTED[pattern] if not re.search(pattern, text)] == []
    assert [text for text in REFUSED[pattern] if re.search(pattern, text)] == []


def test_every_pattern_has_a_name_for_messages() -> None:
    patterns = {value for name, value in vars(scalars).items() if name.endswith("_PATTERN")}
    assert patterns == set(scalars.PATTERN_NAMES)
