from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.identity.spiffe import SpiffeError, SpiffeId, check_trust_domain

SEGMENTS = st.from_regex(r"[a-zA-Z0-9._-]{1,63}", fullmatch=True).filter(lambda text: text not in {".", ".."})
TRUST_DOMAINS = st.from_regex(r"[a-z0-9._-]{1,255}", fullmatch=True)


@given(TRUST_DOMAINS, SEGMENTS, SEGMENTS)
def test_every_id_parses_back_from_its_uri_and_account(trust_domain: str, namespace: str, account: str) -> None:
    identity = SpiffeId(trust_domain=trust_domain, namespace=namespace, service_account=account)
    assert SpiffeId.parse(identity.uri) == identity
    assert SpiffeId.of_account(trust_domain, identity.account) == identity


def test_id_is_written_as_istio_writes_it() -> None:
    identity = SpiffeId(trust_domain="cluster.local", namespace="edge", service_account="gw")
    assert str(identity) == identity.uri == "spiffe://cluster.local/ns/edge/sa/gw"
    assert identity.account == "system:serviceaccount:edge:gw"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://",
        "cluster.local/ns/a/sa/b",
        "SPIFFE://cluster.local/ns/a/sa/b",
        "https://cluster.local/ns/a/sa/b",
        "spiffe://cluster.local",
        "spiffe://cluster.local/",
        "spiffe://cluster.local/ns/a",
        "spiffe://cluster.local/ns/a/sa/",
        "spiffe://cluster.local/ns//sa/b",
        "spiffe://cluster.local/ns/a/sa/b/",
        "spiffe://cluster.local/ns/a/sa/b/c",
        "spiffe://cluster.local//ns/a/sa/b",
        "spiffe://cluster.local/sa/a/ns/b",
        "spiffe://cluster.local/ns/../sa/b",
        "spiffe://cluster.local/ns/./sa/b",
        "spiffe://cluster.local/ns/a/sa/b?x",
        "spiffe://cluster.local/ns/a/sa/b#x",
        "spiffe://cluster.local/ns/a/sa/%62",
        "spiffe://cluster.local/ns/a/sa/b\n",
        "spiffe://user@cluster.local/ns/a/sa/b",
        "spiffe://cluster.local:80/ns/a/sa/b",
        "spiffe://Cluster.local/ns/a/sa/b",
        "spiffe:///ns/a/sa/b",
        "spiffe://cluster.local/ns/ä/sa/b",
    ],
)
def test_text_that_is_no_workload_id_is_refused(uri: str) -> None:
    with pytest.raises(SpiffeError):
        SpiffeId.parse(uri)


@pytest.mark.parametrize(
    "subject",
    ["", "edge:gw", "system:serviceaccount:edge", "system:node:edge:gw", "system:serviceaccount:edge:gw:x",
     "system:serviceaccount::gw", "system:serviceaccount:edge:a/b"],
)  # fmt: skip
def test_user_that_is_no_service_account_has_no_id(subject: str) -> None:
    with pytest.raises(SpiffeError):
        SpiffeId.of_account("cluster.local", subject)


@pytest.mark.parametrize("trust_domain", ["", "A", "a/b", "a:1", "u@a", "a b", "a" * 256, "a\n"])
def test_trust_domain_rules(trust_domain: str) -> None:
    with pytest.raises(SpiffeError):
        check_trust_domain(trust_domain)
    assert check_trust_domain("a" * 255) == "a" * 255


def test_an_id_longer_than_a_spiffe_id_may_be_is_refused() -> None:
    with pytest.raises(SpiffeError, match="2048"):
        SpiffeId(trust_domain="a", namespace="n" * 1024, service_account="s" * 1024)
