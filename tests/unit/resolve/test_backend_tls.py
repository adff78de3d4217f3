from __future__ import annotations

import pytest

from meshgw.api.meta import Key, ObjectMeta
from meshgw.api.policy import (
    BackendTLSPolicy,
    BackendTLSPolicySpec,
    BackendTLSPolicyValidation,
    LocalPolicyTargetReferenceWithSectionName,
)
from meshgw.ir.backend import BackendTlsResult, Bundle, SanKind, UpstreamTls, bundle_name
from meshgw.resolve import tables as t
from meshgw.resolve.backend_tls import governing_policy
from tests.unit.resolve.route_graph import GATEWAY, World, service, web

CA = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]"
SYSTEM = "wellKnownCACertificates: System"
NAMED = service(ports="[{port: 80, name: web}, {port: 443, name: tls}]")


def policy(
    name: str = "p",
    *,
    validation: str = SYSTEM,
    section: str = "",
    created: str = "2026-01-01T00:00:00Z",
    generation: int = 3,
    targets: str = "",
) -> str:
    target = "{group: '', kind: Service, name: web" + (f", sectionName: {section}" if section else "") + "}"
    return (
        f"---\nkind: BackendTLSPolicy\nmetadata: {{name: {name}, namespace: default, generation: {generation}, "
        f"creationTimestamp: '{created}'}}\nspec: {{targetRefs: [{targets or target}], "
        f"validation: {{hostname: web.example, {validation}}}}}\n"
    )


def world(*policies: str, bundle: Bundle | None = None, gateways: tuple[Key, ...] = (GATEWAY,)) -> World:
    built = World(NAMED + "".join(policies))
    if bundle:
        built.commit({t.BUNDLES: {("ConfigMap", Key("default", "ca")): bundle}})
    for gateway in gateways:
        built.gateway(gateway)
        built.reach(web(443), gateway)
    return built


GOOD = Bundle(name=bundle_name("ConfigMap", "default", "ca"), roots=b"pem")


def result(built: World, name: str = "p") -> BackendTlsResult:
    row = built.graph.get(t.BACKEND_TLS_RESULTS, Key("default", name))
    assert row is not None
    return row


def reasons(built: World, name: str = "p") -> dict[str, str]:
    """Reasons by type, with `!` before those of conditions that are False."""
    ((_ref, conditions),) = result(built, name).ancestors
    assert all(condition.observed_generation == 3 for condition in conditions)
    return {item.type: ("" if item.status else "!") + item.reason for item in conditions}


def codes(built: World, name: str = "p") -> list[str]:
    return [finding.code for finding in result(built, name).findings]


def tls(built: World, port: int = 443) -> UpstreamTls | None:
    built.reach(web(port))
    cluster = built.cluster(web(port))
    assert cluster is not None
    return cluster.tls


def test_a_policy_with_a_bundle_is_accepted() -> None:
    built = world(policy(validation=CA), bundle=GOOD)
    assert reasons(built) == {"Accepted": "Accepted", "ResolvedRefs": "ResolvedRefs"}
    assert result(built).findings == ()
    assert tls(built) == UpstreamTls(
        sni="web.example", sans=((SanKind.DNS, "web.example"),), bundles=("bundle/configmap/default/ca",)
    )


def test_secrets_hold_bundles_too() -> None:
    built = world(policy(validation=CA.replace("ConfigMap", "Secret")))
    assert reasons(built)["Accepted"] == "!NoValidCACertificate"
    name = bundle_name("Secret", "default", "ca")
    built.commit({t.BUNDLES: {("Secret", Key("default", "ca")): Bundle(name=name, roots=b"pem")}})
    assert reasons(built)["Accepted"] == "Accepted"
    found = tls(built)
    assert found is not None
    assert found.bundles == (name,)


def test_subject_alt_names_replace_the_host_name() -> None:
    sans = "subjectAltNames: [{type: Hostname, hostname: other.example}, {type: URI, uri: 'spiffe://t/a'}]"
    found = tls(world(policy(validation=f"{SYSTEM}, {sans}")))
    assert found is not None
    assert found.sni == "web.example"
    assert found.sans == ((SanKind.DNS, "other.example"), (SanKind.URI, "spiffe://t/a"))


@pytest.mark.parametrize(
    ("validation", "accepted", "refs"),
    [
        (CA, "!NoValidCACertificate", "!InvalidCACertificateRef"),
        (CA.replace("ConfigMap", "Pod"), "!NoValidCACertificate", "!InvalidKind"),
        (CA.replace("''", "x.example"), "!NoValidCACertificate", "!InvalidKind"),
        ("wellKnownCACertificates: example.com/ours", "!Invalid", "ResolvedRefs"),
        (f"{CA}, {SYSTEM}", "!Invalid", "ResolvedRefs"),
        (f"{SYSTEM}, subjectAltNames: [{{type: Hostname}}]", "!Invalid", "ResolvedRefs"),
    ],
)
def test_a_policy_that_cannot_be_applied_closes_and_says_why(validation: str, accepted: str, refs: str) -> None:
    built = world(policy(validation=validation))
    assert reasons(built) == {"Accepted": accepted, "ResolvedRefs": refs}
    assert codes(built)[-1] == "MG3004"
    cluster = built.cluster(web(443))
    assert cluster is not None
    assert cluster.refused
    assert cluster.tls is None


def test_a_bundle_that_is_emptied_and_restored_closes_and_opens() -> None:
    built = world(policy(validation=CA), bundle=GOOD)
    built.commit({t.BUNDLES: {("ConfigMap", Key("default", "ca")): Bundle(name=GOOD.name, error="ca.crt is empty")}})
    assert reasons(built) == {"Accepted": "!NoValidCACertificate", "ResolvedRefs": "!InvalidCACertificateRef"}
    assert tls(built) is None
    built.commit({t.BUNDLES: {("ConfigMap", Key("default", "ca")): GOOD}})
    assert reasons(built)["Accepted"] == "Accepted"
    assert tls(built) is not None


def test_one_good_bundle_is_enough_and_the_bad_one_is_told() -> None:
    refs = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}, {group: '', kind: ConfigMap, name: gone}]"
    built = world(policy(validation=refs), bundle=GOOD)
    assert reasons(built) == {"Accepted": "Accepted", "ResolvedRefs": "!InvalidCACertificateRef"}
    assert codes(built) == ["MG3002"]
    found = tls(built)
    assert found is not None
    assert found.bundles == (GOOD.name,)


def test_a_section_beats_the_whole_service() -> None:
    built = world(policy("whole"), policy("part", section="tls", validation=CA), bundle=GOOD)
    assert reasons(built, "whole")["Accepted"] == reasons(built, "part")["Accepted"] == "Accepted"
    part, whole = tls(built, 443), tls(built, 80)
    assert part is not None
    assert whole is not None
    assert (part.system_roots, whole.system_roots) == (False, True)


def test_a_section_policy_leaves_other_ports_alone() -> None:
    built = world(policy(section="tls"))
    assert tls(built, 443) is not None
    assert tls(built, 80) is None


@pytest.mark.parametrize("section", ["", "tls"])
def test_of_two_policies_the_oldest_wins(section: str) -> None:
    built = world(policy("a", created="2026-02-01T00:00:00Z", section=section), policy("b", section=section))
    assert reasons(built, "a")["Accepted"] == "!Conflicted"
    assert reasons(built, "b")["Accepted"] == "Accepted"
    assert codes(built, "a") == ["MG3005"]
    built.remove(t.BACKEND_TLS_POLICIES, Key("default", "b"))
    assert reasons(built, "a")["Accepted"] == "Accepted"


def test_of_equally_old_policies_the_first_name_wins() -> None:
    built = world(policy("b"), policy("a"))
    assert reasons(built, "a")["Accepted"] == "Accepted"
    assert reasons(built, "b")["Accepted"] == "!Conflicted"


def test_a_broken_winner_is_not_replaced_by_the_loser() -> None:
    built = world(policy("a", validation=CA), policy("b"))
    cluster = built.cluster(web(443))
    assert cluster is not None
    assert "BackendTLSPolicy default/a" in cluster.refused


@pytest.mark.parametrize(
    "targets",
    [
        "{group: '', kind: Service, name: web, sectionName: nowhere}",
        "{group: '', kind: Service, name: web}, {group: x.example, kind: Backend, name: b}",
        "{group: '', kind: Service, name: web}, {group: '', kind: Service, name: gone}",
    ],
)
def test_a_target_that_is_not_there_is_told(targets: str) -> None:
    built = world(policy(targets=targets))
    assert reasons(built)["Accepted"] == "!TargetNotFound"
    assert codes(built) == ["MG4005"]


def test_each_gateway_that_uses_the_service_is_an_ancestor() -> None:
    other = Key("infra", "other")
    built = world(policy(), gateways=(other, GATEWAY))
    refs = [ref for ref, _conditions in result(built).ancestors]
    assert [(ref.kind, ref.namespace, ref.name) for ref in refs] == [
        ("Gateway", "infra", "edge"),
        ("Gateway", "infra", "other"),
    ]


def test_a_policy_nobody_uses_has_no_result() -> None:
    built = world(policy(), gateways=())
    assert built.graph.rows(t.BACKEND_TLS_RESULTS) == {}
    assert World(policy()).graph.rows(t.BACKEND_TLS_RESULTS) == {}


def test_ungoverned_ports_have_no_policy() -> None:
    built = world(policy(section="tls"))
    assert governing_policy(built.graph, Key("default", "web"), "web") is None
    assert governing_policy(built.graph, Key("other", "web"), "tls") is None
    governing = governing_policy(built.graph, Key("default", "web"), "tls")
    assert governing is not None
    assert governing.key == Key("default", "p")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_gateway_that_forwards_bytes_of_the_clients_own_is_no_ancestor(protocol: str) -> None:
    built = world(policy(), gateways=())
    built.gateway(GATEWAY)
    built.reach(web(443, protocol))
    assert built.graph.rows(t.BACKEND_TLS_RESULTS) == {}


def broken(built: World, name: str = "broken", *, targets: bool = True, unknown: tuple[str, ...] = ()) -> None:
    """Put a policy that could not be read, or not in full."""
    metadata = ObjectMeta(name=name, namespace="default")
    refs = (LocalPolicyTargetReferenceWithSectionName(group="", kind="Service", name="web"),) if targets else ()
    validation = BackendTLSPolicyValidation(hostname="web.example", well_known_ca_certificates="System")
    row = BackendTLSPolicy(
        metadata=metadata,
        spec=BackendTLSPolicySpec(target_refs=refs, validation=validation),
        unknown_fields=unknown,
        unreadable="" if unknown and targets else "cannot be read",
    )
    built.commit({t.BACKEND_TLS_POLICIES: {Key("default", name): row}})


def refused(built: World) -> str:
    """Why the backend is not reached."""
    cluster = built.cluster(web(443))
    assert cluster is not None
    return cluster.refused


def test_a_policy_that_could_not_be_read_closes_its_backends() -> None:
    built = world()
    broken(built)
    assert refused(built)
    ((_ref, conditions),) = result(built, "broken").ancestors
    assert [item.reason for item in conditions if not item.status] == ["Invalid"]
    assert codes(built, "broken") == ["MG3004"]


def test_a_policy_with_fields_that_are_not_understood_closes_its_backends() -> None:
    built = world()
    broken(built, unknown=("spec.validation.subjectAltName",))
    assert "spec.validation.subjectAltName" in refused(built)
    (finding,) = result(built, "broken").findings
    assert (finding.code, finding.field) == ("MG3004", "spec.validation.subjectAltName")


def test_a_policy_of_unknown_targets_closes_what_no_other_policy_governs() -> None:
    built = world()
    broken(built, targets=False, unknown=("spec.targetRefs",))
    assert refused(built)
    (finding,) = result(built, "broken").findings
    assert "backends in namespace default without another policy" in finding.message
    built.put(policy())
    assert not refused(built)


def test_a_policy_that_could_not_be_read_does_not_displace_one_that_could() -> None:
    built = world(policy())
    broken(built, "a")
    assert not refused(built)
