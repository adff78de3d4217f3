from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from structlog.testing import capture_logs

from meshgw.identity.address import AddressError
from meshgw.identity.authority import MeshAuthority
from meshgw.identity.certificate import make_csr, make_key
from meshgw.identity.errors import (
    AnswerRefusedError,
    CaRefusedError,
    CaUnavailableError,
    CredentialsError,
    IssueError,
)
from meshgw.identity.istiod import FileRootSource, IstiodClient, RootSource
from meshgw.identity.protocol import CertificateRequest, CertificateResponse
from meshgw.identity.selfsigned import EmbeddedCa
from meshgw.identity.spiffe import SpiffeId
from meshgw.identity.tokens import TokenSource
from tests.unit.identity.parts import GATEWAY, OTHER, TOKEN, FakeClock, leaf_of, scripted_ca, token, uris_of

AUTHORITY = MeshAuthority()
Code = grpc.StatusCode


async def _roots() -> bytes:
    return AUTHORITY.roots_pem


def _client(
    address: str, *, clock: FakeClock | None = None, roots: RootSource = _roots, source: TokenSource = token
) -> IstiodClient:
    return IstiodClient(address, roots=roots, token=source, plaintext=True, clock=clock or FakeClock(runs_ahead=True))


@pytest.mark.parametrize("tls", [False, True])
async def test_certificate_comes_from_the_embedded_ca(tls: bool) -> None:  # noqa: FBT001 - a parameter
    async with EmbeddedCa(MeshAuthority(), tls=tls) as ca:
        client = IstiodClient(ca.address, roots=ca.roots, token=ca.tokens, plaintext=not tls)
        first, second = await client.fetch(GATEWAY), await client.fetch(GATEWAY)
        assert uris_of(leaf_of(first.chain_pem)) == [GATEWAY.uri]
        assert first.roots_pem == await ca.roots()
        assert first.not_after - first.not_before == timedelta(hours=24, minutes=2)
        assert first.private_key != second.private_key


async def test_certificate_comes_over_a_unix_socket(short_path: Path) -> None:
    async with EmbeddedCa(MeshAuthority(), address=f"unix:{short_path}/ca.sock") as ca:
        assert (await _client(ca.address, roots=ca.roots, source=ca.tokens).fetch(OTHER)).identity == OTHER


async def test_lifetime_asked_for_is_sent_in_seconds() -> None:
    async with EmbeddedCa(MeshAuthority()) as ca:
        client = IstiodClient(
            ca.address, roots=ca.roots, token=ca.tokens, plaintext=True, lifetime=timedelta(seconds=30)
        )
        issued = await client.fetch(GATEWAY)
    assert issued.not_after - issued.not_before == timedelta(minutes=2, seconds=30)


async def test_token_and_cluster_travel_as_istio_expects() -> None:
    async with scripted_ca([Code.UNAUTHENTICATED]) as ca:
        client = IstiodClient(ca.address, roots=_roots, token=token, plaintext=True, cluster_id="home")
        with pytest.raises(CaRefusedError):
            await client.fetch(GATEWAY)
        assert ca.metadata[0]["authorization"] == f"Bearer {TOKEN}"
        assert ca.metadata[0]["clusterid"] == "home"
        request = CertificateRequest.decode(ca.requests[0])
        assert (request.validity_seconds, request.metadata) == (0, {})
        assert x509.load_pem_x509_csr(request.csr.encode()).is_signature_valid


async def test_no_cluster_id_is_sent_when_there_is_none() -> None:
    async with scripted_ca([Code.UNAUTHENTICATED]) as ca:
        with pytest.raises(CaRefusedError):
            await _client(ca.address).fetch(GATEWAY)
        assert "clusterid" not in ca.metadata[0]


@pytest.mark.parametrize(
    "code",
    [
        Code.CANCELLED,
        Code.DEADLINE_EXCEEDED,
        Code.RESOURCE_EXHAUSTED,
        Code.ABORTED,
        Code.INTERNAL,
        Code.UNAVAILABLE,
    ],
)
async def test_passing_failures_are_tried_five_times_with_growing_delays(code: grpc.StatusCode) -> None:
    clock = FakeClock(runs_ahead=True)
    async with scripted_ca([code]) as ca:
        with pytest.raises(CaUnavailableError) as caught:
            await _client(ca.address, clock=clock).fetch(GATEWAY)
        assert caught.value.code == code.name
        assert len(ca.requests) == 5
        assert len(set(ca.peers)) == 5, "each try has a connection of its own"
        assert len(set(ca.requests)) == 1
    assert clock.slept == pytest.approx([0.1, 0.2, 0.4, 0.8])


@pytest.mark.parametrize(
    "code",
    [
        Code.UNAUTHENTICATED,
        Code.INVALID_ARGUMENT,
        Code.PERMISSION_DENIED,
        Code.UNIMPLEMENTED,
        Code.NOT_FOUND,
        Code.FAILED_PRECONDITION,
        Code.UNKNOWN,
        Code.OUT_OF_RANGE,
        Code.ALREADY_EXISTS,
        Code.DATA_LOSS,
    ],
)
async def test_final_refusals_are_tried_once(code: grpc.StatusCode) -> None:
    async with scripted_ca([code]) as ca:
        with pytest.raises(CaRefusedError) as caught:
            await _client(ca.address).fetch(GATEWAY)
        assert caught.value.code == code.name
        assert len(ca.requests) == 1


@pytest.mark.parametrize(("jitter", "first"), [(-1.0, 0.09), (1.0, 0.11)])
async def test_delays_are_spread_by_a_tenth(jitter: float, first: float) -> None:
    clock = FakeClock(runs_ahead=True, jitter=jitter)
    async with scripted_ca([Code.UNAVAILABLE]) as ca:
        with pytest.raises(CaUnavailableError):
            await _client(ca.address, clock=clock).fetch(GATEWAY)
    assert clock.slept[0] == pytest.approx(first)


async def test_roots_and_token_are_read_for_each_try() -> None:
    reads: list[str] = []

    async def roots() -> bytes:
        reads.append("roots")
        return AUTHORITY.roots_pem

    async def source(identity: SpiffeId) -> str:
        reads.append(identity.uri)
        return TOKEN

    async with scripted_ca([Code.UNAVAILABLE, Code.INTERNAL, Code.UNAUTHENTICATED]) as ca:
        with pytest.raises(CaRefusedError):
            await _client(ca.address, roots=roots, source=source).fetch(GATEWAY)
    assert reads == ["roots", GATEWAY.uri] * 3


async def test_requests_at_the_same_time_share_no_connection() -> None:
    async with scripted_ca([Code.UNAUTHENTICATED]) as ca:
        refusals = await asyncio.gather(
            *(_client(ca.address).fetch(identity) for identity in (GATEWAY, OTHER)), return_exceptions=True
        )
        assert [type(refusal) for refusal in refusals] == [CaRefusedError, CaRefusedError]
        assert len(set(ca.peers)) == 2


async def test_ca_that_is_away_is_unavailable() -> None:
    async with scripted_ca([Code.OK]) as ca:
        address = ca.address
    with pytest.raises(CaUnavailableError) as caught:
        await _client(address).fetch(GATEWAY)
    assert caught.value.code == "UNAVAILABLE"


async def test_ca_that_does_not_answer_runs_into_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = IstiodClient(
            f"127.0.0.1:{silent.getsockname()[1]}",
            roots=_roots,
            token=token,
            plaintext=True,
            timeout=0.02,
            clock=FakeClock(runs_ahead=True),
        )
        with pytest.raises(CaUnavailableError) as caught:
            await client.fetch(GATEWAY)
    assert caught.value.code == "DEADLINE_EXCEEDED"


async def test_cancelling_the_caller_is_not_a_failure_of_the_ca() -> None:
    clock = FakeClock()
    async with scripted_ca([Code.UNAVAILABLE]) as ca, asyncio.TaskGroup() as group:
        task = group.create_task(_client(ca.address, clock=clock).fetch(GATEWAY))
        await clock.asleep()
        task.cancel()
    assert task.cancelled()


def _answer(csr_identity: SpiffeId, authority: MeshAuthority = AUTHORITY) -> bytes:
    chain = authority.issue(make_csr(make_key(), csr_identity), csr_identity)
    return CertificateResponse(cert_chain=chain).encode()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"\x0a\xff", "BAD_ANSWER"),
        (b"", "BAD_ANSWER"),
        (CertificateResponse(cert_chain=("x", "y")).encode(), "BAD_ANSWER"),
        (_answer(GATEWAY), "KEY_MISMATCH"),
    ],
    ids=["cut", "empty", "no certificates", "of another key"],  # not the bytes, which differ from run to run
)
async def test_answer_that_must_not_be_used_is_refused_and_not_retried(answer: bytes, code: str) -> None:
    async with scripted_ca([answer]) as ca:
        with pytest.raises(AnswerRefusedError) as caught:
            await _client(ca.address).fetch(GATEWAY)
        assert caught.value.code == code
        assert len(ca.requests) == 1


async def test_certificate_for_another_identity_is_refused() -> None:
    async with EmbeddedCa(MeshAuthority()) as ca:

        async def other_token(identity: SpiffeId) -> str:
            return ca.mint_token(OTHER.namespace, OTHER.service_account)

        with pytest.raises(AnswerRefusedError, match="IDENTITY_MISMATCH"):
            await _client(ca.address, roots=ca.roots, source=other_token).fetch(GATEWAY)


async def test_certificate_of_another_trust_domain_is_refused() -> None:
    async with EmbeddedCa(MeshAuthority("elsewhere")) as ca:
        with pytest.raises(AnswerRefusedError, match="IDENTITY_MISMATCH"):
            await _client(ca.address, roots=ca.roots, source=ca.tokens).fetch(GATEWAY)


async def test_certificate_of_a_foreign_root_is_refused() -> None:
    async with EmbeddedCa(MeshAuthority()) as ca:
        with pytest.raises(AnswerRefusedError, match="UNTRUSTED_CHAIN"):
            await _client(ca.address, source=ca.tokens).fetch(GATEWAY)


async def test_certificate_that_ended_on_the_way_is_refused() -> None:
    clock = FakeClock()
    async with EmbeddedCa(MeshAuthority()) as ca:
        clock.time += timedelta(hours=25)
        with pytest.raises(AnswerRefusedError, match="NOT_VALID_NOW"):
            await _client(ca.address, clock=clock, roots=ca.roots, source=ca.tokens).fetch(GATEWAY)


async def test_refusals_of_the_embedded_ca_arrive_with_their_codes() -> None:
    clock = FakeClock(runs_ahead=True)
    authority = MeshAuthority(root_lifetime=timedelta(hours=1), clock=clock)
    async with EmbeddedCa(authority) as ca:
        with pytest.raises(CaRefusedError) as caught:
            await _client(ca.address, roots=ca.roots).fetch(GATEWAY)
        assert caught.value.code == "UNAUTHENTICATED"
        greedy = IstiodClient(ca.address, roots=ca.roots, token=ca.tokens, plaintext=True, lifetime=timedelta(days=91))
        with pytest.raises(CaRefusedError, match="TTL_ERROR") as caught:
            await greedy.fetch(GATEWAY)
        assert caught.value.code == "INVALID_ARGUMENT"
        clock.time += timedelta(hours=2)
        with pytest.raises(CaUnavailableError, match="CA_NOT_READY") as unavailable:
            await _client(ca.address, clock=clock, roots=ca.roots, source=ca.tokens).fetch(GATEWAY)
        assert unavailable.value.code == "INTERNAL"


async def test_root_rotation_is_followed_from_the_file_without_a_new_client(tmp_path: Path) -> None:
    path = tmp_path / "root-cert.pem"
    authority = MeshAuthority()
    path.write_bytes(authority.roots_pem)
    async with EmbeddedCa(authority, tls=True) as ca:
        client = IstiodClient(ca.address, roots=FileRootSource(path), token=ca.tokens, clock=FakeClock(runs_ahead=True))
        assert (await client.fetch(GATEWAY)).roots_pem.count(b"BEGIN") == 1
        authority.rotate_root()
        with pytest.raises(AnswerRefusedError, match="UNTRUSTED_CHAIN"):
            await client.fetch(GATEWAY)
        path.write_bytes(authority.roots_pem)
        assert (await client.fetch(GATEWAY)).roots_pem == authority.roots_pem
        authority.retire_roots()
        path.write_bytes(authority.roots_pem)
        assert (await client.fetch(GATEWAY)).roots_pem == authority.roots_pem
        assert authority.roots_pem.count(b"BEGIN") == 1


@pytest.mark.parametrize("tls", [False, True])
async def test_coming_root_joins_the_bundle_early_only_over_tls(tls: bool) -> None:  # noqa: FBT001 - a parameter
    authority = MeshAuthority()
    before = authority.roots_pem

    async def old_roots() -> bytes:
        return before

    authority.add_root()
    async with EmbeddedCa(authority, tls=tls) as ca:
        client = IstiodClient(ca.address, roots=old_roots, token=ca.tokens, plaintext=not tls)
        assert (await client.fetch(GATEWAY)).roots_pem == (authority.roots_pem if tls else before)


async def test_server_with_a_foreign_certificate_gets_no_token() -> None:
    async with EmbeddedCa(MeshAuthority(), tls=True) as ca:
        client = IstiodClient(ca.address, roots=_roots, token=ca.tokens, clock=FakeClock(runs_ahead=True))
        with capture_logs() as logs, pytest.raises(CaUnavailableError) as caught:
            await client.fetch(GATEWAY)
    assert caught.value.code == "UNAVAILABLE"
    assert {entry["event"] for entry in logs} == {"certificate request failed"}, "the CA heard nothing"


async def test_server_with_another_name_is_refused() -> None:
    async with EmbeddedCa(MeshAuthority(), tls=True) as ca:
        for name in ("istiod.other.svc", None):
            client = IstiodClient(
                ca.address, roots=ca.roots, token=ca.tokens, server_name=name, clock=FakeClock(runs_ahead=True)
            )
            with pytest.raises(CaUnavailableError):
                await client.fetch(GATEWAY)
        named = IstiodClient(ca.address, roots=ca.roots, token=ca.tokens, server_name="localhost")
        assert (await named.fetch(GATEWAY)).identity == GATEWAY


@pytest.mark.parametrize("address", ["10.0.0.1:15010", "localhost:15010", "istiod.istio-system.svc:15010"])
def test_token_never_leaves_the_machine_in_the_clear(address: str) -> None:
    with pytest.raises(AddressError, match="without TLS"):
        _client(address)


def test_cluster_id_that_is_no_header_is_refused() -> None:
    with pytest.raises(ValueError, match="cluster id"):
        IstiodClient("127.0.0.1:1", roots=_roots, token=token, plaintext=True, cluster_id="a\nb")


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with EmbeddedCa(MeshAuthority()) as ca:
        assert (await _client(ca.address, roots=ca.roots, source=ca.tokens).fetch(GATEWAY)).identity == GATEWAY


def _failing_token(error: Exception | str) -> TokenSource:
    async def source(identity: SpiffeId) -> str:
        if isinstance(error, Exception):
            raise error
        return error

    return source


@pytest.mark.parametrize(
    "token_read",
    [FileNotFoundError("/var/token"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), "", "secret\nsecret", "säcret"],
)
async def test_token_that_cannot_be_sent_is_reported_without_being_shown(token_read: Exception | str) -> None:
    with pytest.raises(CredentialsError) as caught:
        await _client("127.0.0.1:1", source=_failing_token(token_read)).fetch(GATEWAY)
    assert caught.value.code == "TOKEN_UNREADABLE"
    assert "cret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("bundle", [b"", b"x", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", None])
async def test_roots_that_cannot_be_read_stop_before_anything_is_sent(tmp_path: Path, bundle: bytes | None) -> None:
    path = tmp_path / "roots.pem"
    if bundle is not None:
        path.write_bytes(bundle)
    async with scripted_ca([b""]) as ca:
        with pytest.raises(CredentialsError) as caught:
            await _client(ca.address, roots=FileRootSource(path)).fetch(GATEWAY)
        assert caught.value.code == "ROOTS_UNREADABLE"
        assert ca.requests == []


async def test_errors_and_logs_hold_no_token_even_if_the_ca_echoes_it() -> None:
    with capture_logs() as logs:
        for code in (Code.UNAUTHENTICATED, Code.UNAVAILABLE):
            async with scripted_ca([code], details=f"no such token: {TOKEN} " + "x" * 5000) as ca:
                with pytest.raises(IssueError) as caught:
                    await _client(ca.address).fetch(GATEWAY)
            assert "[token]" in str(caught.value)
            assert TOKEN not in f"{caught.value!r}"
            assert len(str(caught.value)) < 400
    assert len(logs) == 5
    assert TOKEN not in str(logs)
