"""What the controller is allowed, and where."""

from __future__ import annotations

from collections.abc import Iterable

from meshgw.api.registry import KINDS, Kind
from meshgw.cluster.serving import GIVEN_SECRET, OWN_SECRET
from meshgw.install.rules import WRITTEN, Grant, PolicyRule, Reach, Scope, grants, rules
from meshgw.pipeline import list_kinds
from meshgw.write.workload import PROXY_KINDS


def _allowed(reach: Reach, kinds: Iterable[Kind] = KINDS) -> set[tuple[str, str, str]]:
    held = rules(reach, kinds)
    return {(rule.group, resource, verb) for rule in held for resource in rule.resources for verb in rule.verbs}


def test_every_verb_of_the_registry_is_granted_and_no_kind_twice() -> None:
    kinds = list_kinds().kinds
    cluster, namespaced, secrets = (
        _allowed(reach, kinds) for reach in (Reach.CLUSTER, Reach.NAMESPACED, Reach.SECRETS)
    )
    for kind in kinds:
        home = secrets if kind.name == "Secret" else namespaced if kind.namespaced else cluster
        for verb in kind.verbs:
            word, _, part = verb.partition(" ")
            need = (kind.group, f"{kind.plural}/{part}" if part else kind.plural, word)
            assert need in home
            assert sum(need in found for found in (cluster, namespaced, secrets)) == 1


def test_secrets_are_read_and_never_written_outside_the_controllers_namespace() -> None:
    assert rules(Reach.SECRETS, KINDS) == (PolicyRule("", ("secrets",), ("list", "watch")),)
    for reach in (Reach.CLUSTER, Reach.NAMESPACED, Reach.MESH):
        assert [rule for rule in rules(reach, KINDS) if "secrets" in rule.resources] == []


def test_objects_of_proxies_are_applied_and_deleted() -> None:
    """By what their writer says that it needs."""
    allowed = _allowed(Reach.NAMESPACED)
    assert {(kind.group, kind.plural) for kind in PROXY_KINDS} == set(WRITTEN)
    for kind in PROXY_KINDS:
        assert {(kind.group, kind.plural, verb) for verb in kind.verbs} <= allowed


def test_of_secrets_only_its_own_are_written() -> None:
    held = [rule for rule in rules(Reach.HOME, KINDS) if "secrets" in rule.resources]
    assert {(rule.verbs, rule.names) for rule in held} == {
        (("create",), ()),
        (("get", "update"), (OWN_SECRET, GIVEN_SECRET)),
    }


def test_configuration_is_never_written() -> None:
    written = {"create", "patch", "update", "delete"}
    groups = {"gateway.networking.k8s.io", "security.istio.io"}
    touched = {need for reach in Reach for need in _allowed(reach) if need[0] in groups and need[2] in written}
    assert touched
    assert {resource.partition("/")[2] for _group, resource, _verb in touched} == {"status"}


def test_nothing_is_granted_by_wildcard() -> None:
    for reach in Reach:
        for rule in rules(reach, KINDS):
            assert "*" not in (rule.group, *rule.resources, *rule.verbs)


def test_rules_do_not_depend_on_the_order_of_kinds() -> None:
    for reach in Reach:
        assert rules(reach, KINDS) == rules(reach, tuple(reversed(KINDS)))


def test_by_default_all_but_secrets_is_granted_everywhere() -> None:
    assert grants(Scope()) == (
        Grant(Reach.CLUSTER, ""),
        Grant(Reach.HOME, "meshgw-system"),
        Grant(Reach.NAMESPACED, ""),
    )


def test_secrets_can_be_granted_everywhere_or_by_namespace() -> None:
    everywhere = grants(Scope(cluster_wide_secrets=True, secret_namespaces=("a",)))
    assert [grant for grant in everywhere if grant.reach is Reach.SECRETS] == [Grant(Reach.SECRETS, "")]
    some = grants(Scope(secret_namespaces=("a", "b", "a")))
    assert [grant.namespace for grant in some if grant.reach is Reach.SECRETS] == ["a", "b"]


def test_named_namespaces_are_all_that_is_served() -> None:
    held = grants(Scope(namespaces=("a", "b"), secret_namespaces=("c",), home="here"))
    assert {grant.namespace for grant in held if grant.reach is Reach.NAMESPACED} == {"a", "b"}
    assert {grant.namespace for grant in held if grant.reach is Reach.SECRETS} == {"a", "b", "c"}
    assert Grant(Reach.HOME, "here") in held
    assert Grant(Reach.MESH, "istio-system") in held


def test_what_holds_for_all_namespaces_is_read_where_istio_is() -> None:
    allowed = _allowed(Reach.MESH)
    assert {("security.istio.io", "authorizationpolicies", verb) for verb in ("list", "watch")} <= allowed
    assert {resource for _group, resource, _verb in allowed} == {"authorizationpolicies", "configmaps"}


def test_istios_namespace_is_granted_once() -> None:
    held = grants(Scope(namespaces=("istio-system",)))
    assert [grant for grant in held if grant.reach is Reach.MESH] == []
