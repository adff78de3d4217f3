"""AuthorizationPolicy: what it targets, what it means, and denial where it cannot be read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml

from meshgw.api.decode import decode
from meshgw.api.istio import AuthorizationPolicy as Document
from meshgw.api.istio import WorkloadSelector
from meshgw.api.meta import Key
from meshgw.engine import Graph
from meshgw.ir.gateway import Gateway, Role, Settings
from meshgw.ir.mesh import Action, AuthorizationPolicy, AuthorizationRule, Operation, Source, StringKind, StringMatch
from meshgw.resolve import tables as t
from meshgw.resolve.authorization import WORKLOADS_OF, deny_authorization, deny_policy
from tests.rig.mesh import CLASS, WAYPOINT, feed, gateway, mesh_graph, remove, service

ECHO, DB = Key("default", "echo"), Key("default", "db")
EVERYTHING = (AuthorizationRule(),)
REFS = "targetRefs: [{kind: Service, group: '', name: echo}]"


def policy(spec: str, *, name: str = "p", namespace: str = "default", annotations: str = "") -> str:
    return f"""
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: {namespace}, annotations: {{{annotations}}}}}
spec: {{{spec}}}
"""


def world(*texts: str, **settings: Any) -> Graph:
    services = service("echo", "10.0.0.1", "[{name: http, port: 80}]") + service("db", "10.0.0.2", "[{port: 90}]")
    return mesh_graph(CLASS + gateway() + services + "".join(texts), settings=Settings(mesh=True, **settings))


def resolved(graph: Graph, name: str = "p", namespace: str = "default") -> AuthorizationPolicy | None:
    return graph.get(t.POLICIES, Key(namespace, name))


def read(spec: str, **settings: Any) -> AuthorizationPolicy:
    row = resolved(world(policy(f"{REFS}, {spec}"), **settings))
    assert row is not None
    return row


def in_force(graph: Graph, service: Key = ECHO) -> list[str]:
    row = graph.get(t.AUTHORIZATIONS, (WAYPOINT, service))
    assert row is not None
    return [item.key.name for item in row.policies]


def exact(value: str) -> StringMatch:
    return StringMatch(StringKind.EXACT, value)


def is_denial(row: AuthorizationPolicy) -> bool:
    return row.action is Action.DENY and row.rules == EVERYTHING and "MG4004" in [item.code for item in row.findings]


# --- Targets -------------------------------------------------------------------------------------------------------


def test_a_policy_for_a_service_holds_for_that_service_only() -> None:
    graph = world(policy(REFS))
    assert in_force(graph) == ["p"]
    assert in_force(graph, DB) == []
    assert in_force(graph, WORKLOADS_OF) == []


def test_a_policy_for_the_waypoint_holds_for_all_its_traffic() -> None:
    graph = world(policy("targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]"))
    assert [in_force(graph, key) for key in (ECHO, DB, WORKLOADS_OF)] == [["p"]] * 3


def test_a_policy_for_a_gateway_of_another_namespace_holds_for_nothing_here() -> None:
    spec = "targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]"
    graph = world(policy(spec, namespace="other"))
    assert in_force(graph) == []


def test_a_policy_for_the_class_is_read_in_the_root_namespace_only() -> None:
    spec = "targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: meshgw-waypoint}]"
    graph = world(policy(spec, namespace="istio-system", name="root"), policy(spec, namespace="other", name="stray"))
    assert in_force(graph) == ["root"]
    stray = resolved(graph, "stray", "other")
    assert stray is not None
    assert is_denial(stray)
    assert stray.targets == (("Namespace", Key("", "other")),)


def test_the_deprecated_single_target_counts_too() -> None:
    assert in_force(world(policy("targetRef: {kind: Service, group: '', name: echo}"))) == ["p"]


def test_policies_with_a_selector_or_without_target_are_the_node_proxies_business() -> None:
    graph = world(policy("selector: {matchLabels: {app: echo}}, action: DENY, rules: [{}]"), policy("", name="q"))
    assert resolved(graph) is None
    assert resolved(graph, "q") is None


def test_service_entries_are_served_by_nobody_and_guarded_by_nobody() -> None:
    spec = "targetRefs: [{kind: ServiceEntry, group: networking.istio.io, name: x}]"
    assert resolved(world(policy(spec))) is None


def test_a_target_that_is_not_understood_closes_the_namespace() -> None:
    spec = "targetRefs: [{kind: Pod, group: '', name: x}, {kind: Service, group: '', name: echo}]"
    graph = world(policy(spec))
    row = resolved(graph)
    assert row is not None
    assert is_denial(row)
    assert set(row.targets) == {("Service", ECHO), ("Namespace", Key("", "default"))}
    assert [in_force(graph, key) for key in (ECHO, DB, WORKLOADS_OF)] == [["p"]] * 3


def test_policies_are_in_order_of_namespace_and_name() -> None:
    names = ["c", "a", "b"]
    assert in_force(world(*(policy(REFS, name=name) for name in names))) == ["a", "b", "c"]


def test_a_policy_comes_and_goes_with_its_document() -> None:
    graph = world()
    assert in_force(graph) == []
    delta = feed(graph, policy(REFS))
    assert list(delta.changed(t.AUTHORIZATIONS)) == [(WAYPOINT, ECHO)]
    remove(graph, t.AUTHORIZATION_POLICIES, Key("default", "p"))
    assert in_force(graph) == []


# --- Meaning -------------------------------------------------------------------------------------------------------


def test_every_field_and_its_opposite_is_read() -> None:
    row = read(
        "rules: [{from: [{source: {principals: [a/b], notPrincipals: [c/d], namespaces: [e], notNamespaces: [f]}}],"
        " to: [{operation: {hosts: [h], notHosts: [i], ports: ['80', '443'], notPorts: ['81'], methods: [GET],"
        " notMethods: [PUT], paths: [/x], notPaths: [/y]}}]}]"
    )
    assert row.action is Action.ALLOW
    assert row.rules == (
        AuthorizationRule(
            sources=(
                Source(
                    principals=(exact("a/b"),),
                    not_principals=(exact("c/d"),),
                    namespaces=(exact("e"),),
                    not_namespaces=(exact("f"),),
                ),
            ),
            operations=(
                Operation(
                    hosts=(exact("h"),),
                    not_hosts=(exact("i"),),
                    ports=(80, 443),
                    not_ports=(81,),
                    methods=(exact("GET"),),
                    not_methods=(exact("PUT"),),
                    paths=(exact("/x"),),
                    not_paths=(exact("/y"),),
                ),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("x", exact("x")),
        ("x*", StringMatch(StringKind.PREFIX, "x")),
        ("*x", StringMatch(StringKind.SUFFIX, "x")),
        ("*", StringMatch(StringKind.PRESENT)),
        ("*x*", StringMatch(StringKind.SUFFIX, "x*")),
        ("x*y", exact("x*y")),
    ],
)
def test_value_forms(value: str, match: StringMatch) -> None:
    row = read(f"rules: [{{to: [{{operation: {{paths: ['{value}']}}}}]}}]")
    assert row.rules[0].operations[0].paths == (match,)


@pytest.mark.parametrize(
    ("principal", "values"),
    [
        ("cluster.local/ns/a/sa/b", ["new/ns/a/sa/b", "old/ns/a/sa/b"]),
        ("new/ns/a/sa/b", ["new/ns/a/sa/b", "old/ns/a/sa/b"]),
        ("old/ns/a/sa/b", ["new/ns/a/sa/b", "old/ns/a/sa/b"]),
        ("foreign/ns/a/sa/b", ["foreign/ns/a/sa/b"]),
    ],
)
def test_principals_hold_for_every_alias_of_the_trust_domain(principal: str, values: list[str]) -> None:
    row = read(
        f"rules: [{{from: [{{source: {{principals: [{principal}]}}}}]}}]",
        trust_domain="new",
        trust_domain_aliases=("old",),
    )
    assert [item.value for item in row.rules[0].sources[0].principals] == values


def test_actions() -> None:
    assert read("action: DENY, rules: [{}]").action is Action.DENY
    assert read("rules: [{}]").action is Action.ALLOW
    assert read("action: ALLOW").rules == ()


@pytest.mark.parametrize("text", ["action: AUDIT, rules: [{}]", "action: DENY, rules: [{}], dry: 'true'"])
def test_audits_and_dry_runs_decide_nothing_and_say_so(text: str) -> None:
    dry = "dry" in text
    spec = f"{REFS}, {text.split(', dry', maxsplit=1)[0]}"
    graph = world(policy(spec, annotations="istio.io/dry-run: 'true'" if dry else ""))
    row = resolved(graph)
    assert row is not None
    assert [item.code for item in row.findings] == ["MG4008"]
    assert in_force(graph) == []


@pytest.mark.parametrize(
    "targets",
    [
        "{kind: Service, group: '', name: absent}",
        "{kind: Gateway, group: gateway.networking.k8s.io, name: absent}",
    ],
)
def test_a_policy_that_guards_nothing_says_so(targets: str) -> None:
    row = resolved(world(policy(f"targetRefs: [{targets}]")))
    assert row is not None
    assert [item.code for item in row.findings] == ["MG4005"]


def test_a_policy_for_another_controllers_gateway_or_its_services_is_not_remarked_on() -> None:
    theirs = gateway("istio").replace("meshgw-waypoint", "istio-waypoint")
    spec = "targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: istio}]"
    behind = service("theirs", "10.0.0.9", "[{port: 80}]", waypoint="istio")
    other = "targetRefs: [{kind: Service, group: '', name: theirs}]"
    graph = world(theirs, behind, policy(spec), policy(other, name="q"))
    assert [row.findings for row in (resolved(graph), resolved(graph, "q")) if row] == [(), ()]


EDGE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: default, labels: {meshgw.dev/role: ingress}}
spec: {gatewayClassName: meshgw-waypoint, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""
OF_EDGE = "targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: edge}]"


def test_a_policy_for_a_gateway_of_another_role_holds_for_all_of_it() -> None:
    graph = world(EDGE, policy(f"{OF_EDGE}, rules: [{{}}]"))
    row = graph.get(t.AUTHORIZATIONS, (Key("default", "edge"), WORKLOADS_OF))
    assert row is not None
    assert [item.key.name for item in row.policies] == ["p"]
    assert [item.findings for item in row.policies] == [()]


@pytest.mark.parametrize(("action", "consequence"), [("ALLOW", "allow nobody"), ("DENY", "deny everybody")])
def test_identities_are_not_known_at_a_gateway_of_another_role(action: str, consequence: str) -> None:
    rules = "rules: [{from: [{source: {namespaces: [a]}}]}]"
    row = resolved(world(EDGE, policy(f"{OF_EDGE}, action: {action}, {rules}")))
    assert row is not None
    (finding,) = row.findings
    assert (finding.code, finding.field) == ("MG4007", "spec.rules")
    assert consequence in finding.message
    assert "Gateway default/edge" in finding.message


def test_a_generation_of_the_gateway_alone_enrols_and_gathers_nothing_anew() -> None:
    graph = world()
    delta = feed(graph, gateway().replace("name: waypoint,", "name: waypoint, generation: 9,"))
    assert delta.changed(t.OUR_GATEWAYS)
    assert not {t.ENROLMENTS.name, t.AUTHORIZATIONS.name, t.WAYPOINT_SERVICES.name} & delta.recomputed.keys()


# --- Denial --------------------------------------------------------------------------------------------------------

UNSUPPORTED = {
    "conditions": "rules: [{when: [{key: source.ip, values: [10.0.0.1]}]}]",
    "custom action": "action: CUSTOM, provider: {name: x}, rules: [{}]",
    "a provider": "provider: {name: x}, rules: [{}]",
    "service accounts": "rules: [{from: [{source: {serviceAccounts: [a]}}]}]",
    "not service accounts": "rules: [{from: [{source: {notServiceAccounts: [a]}}]}]",
    "request principals": "rules: [{from: [{source: {requestPrincipals: ['*']}}]}]",
    "not request principals": "rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]",
    "IP blocks": "rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]",
    "not IP blocks": "rules: [{from: [{source: {notIpBlocks: [10.0.0.0/8]}}]}]",
    "remote IP blocks": "rules: [{from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]}]",
    "not remote IP blocks": "rules: [{from: [{source: {notRemoteIpBlocks: [10.0.0.0/8]}}]}]",
    "path templates": "rules: [{to: [{operation: {paths: ['/a/{*}']}}]}]",
    "templates in notPaths": "rules: [{to: [{operation: {notPaths: ['/a/{**}']}}]}]",
    "an empty source": "rules: [{from: [{source: {}}]}]",
    "a missing source": "rules: [{from: [{}]}]",
    "an empty operation": "rules: [{to: [{operation: {}}]}]",
    "an empty value": "rules: [{to: [{operation: {methods: ['']}}]}]",
    "a port that is none": "rules: [{to: [{operation: {ports: ['http']}}]}]",
    "a port too large": "rules: [{to: [{operation: {ports: ['65536']}}]}]",
    "port zero": "rules: [{to: [{operation: {notPorts: ['0']}}]}]",
    "a foreign digit": "rules: [{to: [{operation: {ports: ['٨٠']}}]}]",
    "an unknown field": "rules: [{from: [{source: {trustDomains: [a]}}]}]",
    "an unknown rule part": "rules: [{form: [{source: {principals: [a]}}]}]",
    "a null": "rules: [{from: null}]",
    "an unknown setting": "priority: 3, rules: [{}]",
}


@pytest.mark.parametrize("spec", UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_a_policy_that_is_not_supported_in_full_denies_its_targets(spec: str) -> None:
    graph = world(policy(f"{REFS}, {spec}"))
    row = resolved(graph)
    assert row is not None
    assert is_denial(row)
    assert row.targets == (("Service", ECHO),)
    assert in_force(graph) == ["p"]
    assert in_force(graph, DB) == []


def test_a_selector_beside_targets_denies_them() -> None:
    text = document(f"{REFS}, rules: [{{}}]")
    both = msgspec.structs.replace(text.spec, selector=WorkloadSelector(match_labels={"a": "b"}))
    graph = world()
    graph.commit({t.AUTHORIZATION_POLICIES: {Key("default", "p"): msgspec.structs.replace(text, spec=both)}})
    row = resolved(graph)
    assert row is not None
    assert is_denial(row)


def test_a_denial_says_which_field_is_to_blame() -> None:
    row = read("rules: [{}, {to: [{operation: {paths: ['/a']}}, {operation: {paths: ['/{*}']}}]}]")
    (finding,) = row.findings
    assert finding.field == "spec.rules[1].to[1].operation.paths"
    assert finding.message == "denies its targets: path templates are not supported"


@pytest.mark.parametrize("spec", ["targetrefs: [{kind: Service, name: echo}]", "targetRefs: null"])
def test_targets_that_were_not_read_close_the_namespace(spec: str) -> None:
    graph = world(policy(f"{spec}, action: DENY, rules: [{{}}]"))
    row = resolved(graph)
    assert row is not None
    assert is_denial(row)
    assert in_force(graph, DB) == ["p"]


def test_mending_a_policy_ends_the_denial() -> None:
    graph = world(policy(f"{REFS}, priority: 3"))
    feed(graph, policy(f"{REFS}, rules: [{{}}]"))
    row = resolved(graph)
    assert row is not None
    assert (row.action, row.findings) == (Action.ALLOW, ())


# --- Bugs of ours --------------------------------------------------------------------------------------------------


def document(spec: str) -> Document:
    found = decode(yaml.safe_load(policy(spec, namespace="istio-system"))).object
    assert isinstance(found, Document)
    return found


def test_a_policy_whose_reading_fails_denies_all_it_names() -> None:
    spec = "targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: c}, {kind: Service, name: s}]"
    key = Key("istio-system", "p")
    ((found, row),) = deny_policy(key, document(spec), RuntimeError("x"))
    assert (found, row.action, row.rules) == (key, Action.DENY, EVERYTHING)
    assert row.targets == (
        ("GatewayClass", Key("", "c")),
        ("Service", Key("istio-system", "s")),
        ("Namespace", Key("", "istio-system")),
    )
    assert [item.code for item in row.findings] == ["MG9001"]


def test_a_node_proxys_policy_whose_reading_fails_denies_nothing_here() -> None:
    assert list(deny_policy(Key("a", "b"), document("rules: [{}]"), RuntimeError("x"))) == []


def test_authorization_that_cannot_be_gathered_denies() -> None:
    row = Gateway(key=WAYPOINT, class_name="c", role=Role.WAYPOINT, accepted=True)
    ((place, found),) = deny_authorization("our-gateways", WAYPOINT, row, RuntimeError("x"))
    assert place == (WAYPOINT, WORKLOADS_OF)
    assert [(item.action, item.rules) for item in found.policies] == [(Action.DENY, EVERYTHING)]


def test_a_denial_names_fields_as_people_write_them() -> None:
    row = read("rules: [{from: [{source: {notIpBlocks: [10.0.0.0/8]}}]}]")
    (finding,) = row.findings
    assert finding.field == "spec.rules[0].from[0].source.notIpBlocks"
    assert finding.message == "denies its targets: notIpBlocks is not supported"
