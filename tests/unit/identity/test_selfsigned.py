from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from meshgw.identity.address import AddressError
from meshgw.identity.authority import MeshAuthority
from meshgw.identity.certificate import make_csr, make_key
from meshgw.identity.protocol import IMPERSONATED_IDENTITY, PATH, CertificateRequest, CertificateResponse
from meshgw.identity.selfsigned import EmbeddedCa
from tests.unit.identity.parts import GATEWAY, OTHER, FakeClock, leaf_of, uris_of

CSR = make_csr(make_key(), OTHER)


async def _call(
    ca: EmbeddedCa,
    request: CertificateRequest | bytes | None = None,
    *,
    token: str | None = None,
    **metadata: str,
) -> CertificateResponse:
    """Call as any Istio client would: `token` stands behind Bearer, `metadata` is sent besides."""
    encoded = request if isinstance(request, bytes) else (request or CertificateRequest(csr=CSR)).encode()
    sent = [("authorization", f"Bearer {ca.mint_token('edge', 'gateway') if token is None else token}")]
    sent = [pair for pair in sent if pair[0] not in metadata] + [pair for pair in metadata.items() if pair[1]]
    async with grpc.aio.insecure_channel(ca.address) as channel:
        return CertificateResponse.decode(
            await channel.unary_unary(PATH, None, None)(encoded, metadata=sent, timeout=5)
        )


async def _refusal(
    ca: EmbeddedCa, request: CertificateRequest | bytes | None = None, *, token: str | None = None, **metadata: str
) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _call(ca, request, token=token, **metadata)
    return caught.value.code(), caught.value.details() or ""


async def test_caller_gets_its_own_identity_whatever_the_csr_names() -> None:
    async with EmbeddedCa(MeshAuthority()) as ca:
        chain = (await _call(ca)).cert_chain
        assert uris_of(leaf_of(chain[0])) == [GATEWAY.uri]
        assert chain[-1].encode() == await ca.roots()


async def test_answer_ends_with_every_root_during_a_rotation() -> None:
    async with EmbeddedCa(MeshAuthority()) as ca:
        ca.authority.rotate_root()
        assert (await _call(ca)).cert_chain[-1].count("BEGIN CERTIFICATE") == 2


async def test_lifetime_asked_for_is_granted() -> None:
    clock = FakeClock()
    async with EmbeddedCa(MeshAuthority(clock=clock)) as ca:
        leaf = leaf_of((await _call(ca, CertificateRequest(csr=CSR, validity_seconds=4))).cert_chain[0])
    assert leaf.not_valid_after_utc == clock.now() + timedelta(seconds=4)


@pytest.mark.parametrize("authorization", ["", "Basic abc", "bearer abc", "Bearer", "Bearer ", "Bearer abc"])
async def test_absent_or_broken_credential_is_unauthenticated(authorization: str) -> None:
    async with EmbeddedCa(MeshAuthority()) as ca:
        code, _ = await _refusal(ca, authorization=authorization)
    assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_expired_and_foreign_tokens_are_unauthenticated() -> None:
    async with EmbeddedCa(MeshAuthority()) as ca, EmbeddedCa(MeshAuthority()) as elsewhere:
        for token in (
            ca.mint_token("edge", "gateway", lifetime=timedelta(seconds=-1)),
            elsewhere.mint_token("edge", "gateway"),
        ):
            code, details = await _refusal(ca, token=token)
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert token not in details


async def test_impersonation_is_unauthenticated_and_an_empty_one_is_none() -> None:
    async with EmbeddedCa(MeshAuthority()) as ca:
        code, _ = await _refusal(ca, CertificateRequest(csr=CSR, metadata={IMPERSONATED_IDENTITY: OTHER.uri}))
        assert code is grpc.StatusCode.UNAUTHENTICATED
        await _call(ca, CertificateRequest(csr=CSR, metadata={IMPERSONATED_IDENTITY: "", "CertSigner": "any"}))


async def test_unknown_cluster_is_unauthenticated() -> None:
    async with EmbeddedCa(MeshAuthority(), cluster_id="home", cluster_aliases=["casa"]) as ca:
        code, _ = await _refusal(ca, clusterid="abroad")
        assert code is grpc.StatusCode.UNAUTHENTICATED
        for known in ("home", "casa", ""):
            await _call(ca, clusterid=known)


@pytest.mark.parametrize(
    ("request_sent", "reason"),
    [
        (CertificateRequest(csr=""), "CSR_ERROR"),
        (CertificateRequest(csr="-----BEGIN CERTIFICATE REQUEST-----"), "CSR_ERROR"),
        (CertificateRequest(csr=CSR, validity_seconds=90 * 86400 + 1), "TTL_ERROR"),
        (CertificateRequest(csr=CSR, validity_seconds=2**63 - 1), "TTL_ERROR"),
    ],
)
async def test_request_that_cannot_be_signed_is_an_invalid_argument(
    request_sent: CertificateRequest, reason: str
) -> None:
    async with EmbeddedCa(MeshAuthority()) as ca:
        code, details = await _refusal(ca, request_sent)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith(reason)


async def test_credentials_are_checked_before_the_csr() -> None:
    async with EmbeddedCa(MeshAuthority()) as ca:
        code, _ = await _refusal(ca, CertificateRequest(csr=""), token="x")
    assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_ca_whose_root_ended_is_not_ready() -> None:
    clock = FakeClock()
    async with EmbeddedCa(MeshAuthority(root_lifetime=timedelta(hours=1), clock=clock)) as ca:
        clock.time += timedelta(hours=2)
        code, details = await _refusal(ca)
    assert code is grpc.StatusCode.INTERNAL
    assert details.startswith("CA_NOT_READY")


async def test_unix_socket_is_for_this_user_only_and_goes_away(short_path: Path) -> None:
    path = short_path / "ca.sock"
    async with EmbeddedCa(MeshAuthority(), address=f"unix:{path}") as ca:
        assert ca.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await _call(ca)
    assert not path.exists()


async def test_ipv6_loopback_is_served_too() -> None:
    async with EmbeddedCa(MeshAuthority(), address="[::1]:0") as ca:
        assert ca.address.startswith("[::1]:")
        await _call(ca)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "localhost:0"])
def test_address_others_can_reach_is_refused(address: str) -> None:
    with pytest.raises(AddressError):
        EmbeddedCa(MeshAuthority(), address=address)


async def test_taken_address_is_an_os_error() -> None:
    async with EmbeddedCa(MeshAuthority()) as ca:
        with pytest.raises(OSError, match="cannot listen"):
            await EmbeddedCa(MeshAuthority(), address=ca.address).__aenter__()


async def test_leaving_a_ca_that_was_never_entered_does_nothing() -> None:
    ca = EmbeddedCa(MeshAuthority(), tls=False)
    await ca.__aexit__(None, None, None)
    async with ca:
        assert await _call(ca, token=ca.mint_token("edge", "gateway"))


async def test_logs_and_reprs_hold_no_token_and_no_key() -> None:
    with capture_logs() as logs:
        async with EmbeddedCa(MeshAuthority(), tls=False) as ca:
            token = ca.mint_token("edge", "gateway")
            await _call(ca, token=token)
            await _refusal(ca, token=f"{token}x")
            await _refusal(ca, CertificateRequest(csr=CSR, validity_seconds=2**62), token=token)
            shown = f"{logs} {ca!r} {vars(ca)} {vars(ca.authority)}"
    assert [entry["log_level"] for entry in logs] == ["info", "info", "warning", "warning"]
    assert token not in shown
    assert token.rpartition(".")[2] not in shown
    assert "PRIVATE" not in shown
