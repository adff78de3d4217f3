from __future__ import annotations

import pytest
from msgspec.structs import replace

from meshgw.api import gateway as api
from meshgw.ir.gateway import ClientValidation, ListenerTls, TlsMode, ValidationMode
from meshgw.resolve import tables as t
from tests.unit.resolve.graph import (
    ADMIT_ALL,
    GOOD,
    HTTP,
    HTTPS,
    certificate,
    change,
    codes,
    config_map,
    grant,
    gw,
    listener,
    lset,
    parse,
    resolve,
    secret,
    shown,
)

# Certificates


def test_several_certificates_are_served_in_their_order_each_once() -> None:
    refs = "tls: {certificateRefs: [{name: b}, {name: a}, {name: b, namespace: default}]}"
    row = listener(resolve(gw(f"{HTTPS}, {refs}") + secret("a") + secret("b")), "https")
    assert row.tls == ListenerTls(certificates=("certificate/default/b", "certificate/default/a"))


MALFORMED = (
    "---\n{kind: Secret, metadata: {name: bad}, type: kubernetes.io/tls, data: {tls.crt: SGVsbG8=, tls.key: SGVsbG8=}}"
)


@pytest.mark.parametrize(
    ("ref", "reason", "code"),
    [
        ("{name: absent}", "InvalidCertificateRef", "MG3001"),
        ("{name: bad}", "InvalidCertificateRef", "MG3001"),
        ("{name: cert, group: wrong.io}", "InvalidCertificateRef", "MG2003"),
        ("{name: cert, kind: WrongKind}", "InvalidCertificateRef", "MG2003"),
        ("{name: cert, namespace: other}", "RefNotPermitted", "MG2002"),
        ("{name: cert}, {name: absent}", "InvalidCertificateRef", "MG3001"),
    ],
)
@pytest.mark.parametrize("protocol", ["HTTPS", "TLS"])
def test_a_bad_certificate_reference_keeps_the_listener_from_serving(
    protocol: str, ref: str, reason: str, code: str
) -> None:
    text = gw(f"name: a, port: 443, protocol: {protocol}, {certificate(ref)}", HTTP)
    graph = resolve(text + secret("cert") + secret("cert", "other") + MALFORMED)
    row = listener(graph, "a")
    assert (row.accepted, row.serving) == (True, False)
    assert shown(row.conditions) == GOOD | {"ResolvedRefs": f"False/{reason}", "Programmed": "False/Invalid"}
    assert codes(row.findings) == [code]
    assert listener(graph, "http").serving


def test_a_missing_forbidden_secret_looks_like_an_existing_one() -> None:
    text = gw(f"{HTTPS}, {certificate('{name: cert, namespace: other}')}")
    assert listener(resolve(text), "https") == listener(resolve(text + secret("cert", "other")), "https")


def test_grants_open_and_close_certificates_of_other_namespaces() -> None:
    graph = resolve(gw(f"{HTTPS}, {certificate('{name: cert, namespace: other}')}") + secret("cert", "other"))
    change(graph, grant("other", kind="Gateway", source="default", name="another"))
    assert shown(listener(graph, "https").conditions)["ResolvedRefs"] == "False/RefNotPermitted"
    change(graph, grant("other", kind="Gateway", source="default", name="cert"))
    assert listener(graph, "https").serving
    change(graph, facts={t.REFERENCE_GRANTS: dict.fromkeys(graph.rows(t.REFERENCE_GRANTS))})
    assert not listener(graph, "https").serving


def test_https_without_certificates_does_not_serve() -> None:
    row = listener(resolve(gw(HTTPS)), "https")
    assert shown(row.conditions)["ResolvedRefs"] == "False/InvalidCertificateRef"


def test_passthrough_needs_no_certificate() -> None:
    row = listener(resolve(gw("name: a, port: 443, protocol: TLS, tls: {mode: Passthrough}")), "a")
    assert row.tls == ListenerTls(mode=TlsMode.PASSTHROUGH)
    assert row.serving


def test_tls_options_are_ignored_and_reported() -> None:
    refs = "tls: {certificateRefs: [{name: cert}], options: {example.com/b: x, example.com/a: y}}"
    row = listener(resolve(gw(f"{HTTPS}, {refs}") + secret("cert")), "https")
    assert row.serving
    assert codes(row.findings) == ["MG3007", "MG3007"]
    assert "[example.com/a]" in row.findings[0].field


@pytest.mark.parametrize(
    ("protocol", "mode"), [("HTTPS", "Passthrough"), ("HTTP", "Terminate"), ("TCP", "Passthrough")]
)
def test_tls_settings_that_the_protocol_does_not_have_are_refused(protocol: str, mode: str) -> None:
    rows = parse(gw("name: a, port: 443, protocol: HTTPS"))
    ((key, row),) = rows[t.GATEWAYS].items()
    tls = api.ListenerTLSConfig(mode=mode)  # type: ignore[arg-type]
    entry = replace(row.spec.listeners[0], protocol=protocol, tls=tls)
    graph = resolve("", facts={t.GATEWAYS: {key: replace(row, spec=replace(row.spec, listeners=(entry,)))}})
    found = listener(graph, "a")
    assert (found.kinds, found.serving) == ((), False)
    assert shown(found.conditions)["Accepted"] == "False/UnsupportedValue"


# Client certificates


def frontend(default: str = "", ports: str = "") -> str:
    return f"  tls: {{frontend: {{default: {{{default}}}, perPort: [{ports}]}}}}"


def validation(ref: str = "{group: '', kind: ConfigMap, name: ca}", mode: str = "AllowValidOnly") -> str:
    return f"validation: {{mode: {mode}, caCertificateRefs: [{ref}]}}"


TWO_PORTS = (f"{HTTPS}, {certificate()}", f"name: alt, port: 8443, protocol: HTTPS, {certificate()}", HTTP)


def test_the_default_validation_is_for_every_https_port_and_no_other() -> None:
    passthrough = f"name: tls, port: 9443, protocol: TLS, {certificate()}"
    graph = resolve(gw(*TWO_PORTS, passthrough, extra=frontend(validation())) + secret("cert") + config_map("ca"))
    client = ClientValidation(bundles=("bundle/configmap/default/ca",))
    tls = {name: listener(graph, name).tls for name in ("https", "alt", "http", "tls")}
    assert {name: found.client if found else None for name, found in tls.items()} == {
        "https": client,
        "alt": client,
        "http": None,
        "tls": None,
    }


def test_the_validation_of_a_port_replaces_the_default_as_a_whole() -> None:
    fallback = validation("{group: '', kind: ConfigMap, name: b}", "AllowInsecureFallback")
    own = f"{{port: 8443, tls: {{{fallback}}}}}"
    bare = "{port: 443, tls: {}}"
    extra = frontend(validation(), f"{own}, {bare}")
    graph = resolve(gw(*TWO_PORTS, extra=extra) + secret("cert") + config_map("ca") + config_map("b"))
    alt, https = listener(graph, "alt").tls, listener(graph, "https").tls
    assert alt is not None
    assert https is not None
    assert alt.client == ClientValidation(
        bundles=("bundle/configmap/default/b",), mode=ValidationMode.INSECURE_FALLBACK
    )
    assert https.client is None


@pytest.mark.parametrize(
    ("ref", "reason", "code"),
    [
        ("{group: '', kind: ConfigMap, name: absent}", "InvalidCACertificateRef", "MG3002"),
        ("{group: '', kind: ConfigMap, name: bad}", "InvalidCACertificateRef", "MG3002"),
        ("{group: '', kind: Service, name: ca}", "InvalidCACertificateKind", "MG2003"),
        ("{group: apps, kind: ConfigMap, name: ca}", "InvalidCACertificateKind", "MG2003"),
        ("{group: '', kind: ConfigMap, name: ca, namespace: other}", "RefNotPermitted", "MG2002"),
    ],
)
def test_validation_without_any_valid_reference_closes_its_port_only(ref: str, reason: str, code: str) -> None:
    extra = frontend(validation(), f"{{port: 8443, tls: {{{validation(ref)}}}}}")
    bad = "---\n{kind: ConfigMap, metadata: {name: bad}, data: {ca.crt: nonsense}}\n"
    text = gw(*TWO_PORTS, extra=extra) + secret("cert") + config_map("ca") + config_map("ca", "other") + bad
    graph = resolve(text)
    row = listener(graph, "alt")
    assert (row.accepted, row.serving) == (False, False)
    assert shown(row.conditions) == GOOD | {
        "Accepted": "False/NoValidCACertificate",
        "ResolvedRefs": f"False/{reason}",
        "Programmed": "False/Invalid",
    }
    assert codes(row.findings) == sorted([code, "MG3002"])
    assert [kind.kind for kind in row.kinds] == ["HTTPRoute", "GRPCRoute"]
    assert listener(graph, "https").serving
    assert listener(graph, "http").serving


def test_one_bad_reference_among_good_ones_is_accepted_but_does_not_serve() -> None:
    refs = "{group: '', kind: ConfigMap, name: ca}, {group: '', kind: ConfigMap, name: absent}"
    row = listener(resolve(gw(*TWO_PORTS, extra=frontend(validation(refs))) + secret("cert") + config_map("ca")), "alt")
    assert (row.accepted, row.serving) == (True, False)
    assert shown(row.conditions)["ResolvedRefs"] == "False/InvalidCACertificateRef"


def test_a_grant_for_config_maps_opens_a_bundle_of_another_namespace() -> None:
    extra = frontend(validation("{group: '', kind: ConfigMap, name: ca, namespace: other}"))
    text = gw(*TWO_PORTS, extra=extra) + secret("cert") + config_map("ca", "other")
    assert not listener(resolve(text), "https").serving
    assert listener(resolve(text + grant("other", kind="Gateway", source="default", to="ConfigMap")), "https").serving


def test_the_gateways_validation_holds_for_its_listener_sets() -> None:
    entry = f"name: a, port: 443, protocol: HTTPS, hostname: a.example.com, {certificate()}"
    extra = frontend(validation()) + "\n" + ADMIT_ALL
    text = gw(HTTP, extra=extra) + lset("more", entry, namespace="team") + secret("cert", "team") + config_map("ca")
    row = listener(resolve(text), "a", owner="team/more")
    assert row.serving
    assert row.tls is not None
    assert row.tls.client == ClientValidation(bundles=("bundle/configmap/default/ca",))
