"""Strategic merge patches."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from meshgw.api.overlay import MERGE_KEYS, REMOVABLE, check_overlay, lay_over

POD = "{spec: {template: {spec: %s}}}"


def read(text: str) -> Any:
    return yaml.safe_load(text)


def laid(base: str, patch: str, kind: str = "Deployment") -> Any:
    assert list(check_overlay(kind, read(patch))) == []
    return lay_over(kind, read(base), read(patch))


def laid_in_pod(base: str, patch: str) -> Any:
    return laid(POD % base, POD % patch)["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    ("base", "patch", "result"),
    [
        ("{a: 1, b: {c: 2}}", "{b: {d: 3}}", "{a: 1, b: {c: 2, d: 3}}"),
        ("{a: 1, b: 2}", "{a: null}", "{b: 2}"),
        ("{a: {b: 1}, c: 2}", "{a: {$patch: delete}}", "{c: 2}"),
        ("{a: {b: 1, c: 2}}", "{a: {$patch: replace, d: 3}}", "{a: {d: 3}}"),
        ("{a: {b: 1}}", "{a: {$patch: merge, c: 2}}", "{a: {b: 1, c: 2}}"),
        ("{a: [1, 2]}", "{a: [3]}", "{a: [3]}"),
        ("{a: 1}", "{a: {b: 2}}", "{a: {b: 2}}"),
        ("{a: {b: 1}}", "{a: 2}", "{a: 2}"),
        ("{}", "{a: {b: {c: null}}}", "{a: {b: {}}}"),
    ],
)
def test_mappings_merge_and_lists_are_replaced(base: str, patch: str, result: str) -> None:
    assert laid(base, patch, "ConfigMap") == read(result)


@pytest.mark.parametrize(
    ("base", "patch", "result"),
    [
        ("[{name: a, x: 1}, {name: b}]", "[{name: a, y: 2}]", "[{name: a, x: 1, y: 2}, {name: b}]"),
        ("[{name: a}]", "[{name: b}]", "[{name: a}, {name: b}]"),
        ("[{name: a}, {name: b}]", "[{name: a, $patch: delete}]", "[{name: b}]"),
        ("[{name: a}]", "[{name: other, $patch: delete}]", "[{name: a}]"),
        ("[{name: a, x: 1}]", "[{name: a, $patch: replace, y: 2}]", "[{name: a, y: 2}]"),
        ("[{name: a}, {name: b}]", "[{$patch: replace}, {name: c}]", "[{name: c}]"),
        ("[{name: a, x: 1}]", "[{name: a, x: null}]", "[{name: a}]"),
    ],
)
def test_items_of_known_lists_merge_by_their_key(base: str, patch: str, result: str) -> None:
    assert laid_in_pod(f"{{volumes: {base}}}", f"{{volumes: {patch}}}") == {"volumes": read(result)}


def test_lists_within_items_merge_too() -> None:
    found = laid_in_pod(
        "{containers: [{name: envoy, args: [a], env: [{name: A, value: '1'}, {name: B}]}]}",
        "{containers: [{name: envoy, args: [b], env: [{name: A, value: '2'}, {name: B, $patch: delete}, {name: C}]}]}",
    )
    env = [{"name": "A", "value": "2"}, {"name": "C"}]
    assert found == {"containers": [{"name": "envoy", "args": ["b"], "env": env}]}


def test_a_list_can_be_taken_away() -> None:
    assert laid_in_pod("{volumes: [{name: a}], x: 1}", "{volumes: null}") == {"x": 1}


def test_a_list_that_was_not_there_is_made() -> None:
    assert laid_in_pod("{}", "{volumes: [{name: a}]}") == {"volumes": [{"name": "a"}]}


def test_ports_of_one_number_are_told_by_their_protocol() -> None:
    base = "{spec: {ports: [{port: 53, protocol: TCP}, {port: 53, protocol: UDP}]}}"
    one = laid(base, "{spec: {ports: [{port: 53, protocol: UDP, nodePort: 30053}]}}", "Service")
    assert [port.get("nodePort") for port in one["spec"]["ports"]] == [None, 30053]


def test_what_lies_below_is_left_as_it_was() -> None:
    base = read(POD % "{volumes: [{name: a}]}")
    before = repr(base)
    lay_over("Deployment", base, read(POD % "{volumes: [{name: a, $patch: delete}], x: 1}"))
    assert repr(base) == before


@pytest.mark.parametrize("kind", sorted(MERGE_KEYS))
def test_only_some_objects_can_be_left_out(kind: str) -> None:
    wrong = [path for path, _message in check_overlay(kind, {"$patch": "delete"})]
    assert wrong == ([] if kind in REMOVABLE else ["$patch"])
    assert lay_over(kind, {"a": 1}, {"$patch": "delete"}) is None


@pytest.mark.parametrize(
    ("kind", "patch", "path"),
    [
        ("Service", "{$patch: replace}", "$patch"),
        ("Service", "{a: {$patch: other}}", "a.$patch"),
        ("Service", "{a: {$retainKeys: [b]}}", "a.$retainKeys"),
        ("Service", "{$setElementOrder/ports: []}", "$setElementOrder/ports"),
        ("Service", "{spec: {ports: {port: 80}}}", "spec.ports"),
        ("Service", "{spec: {ports: [80]}}", "spec.ports[0]"),
        ("Service", "{spec: {ports: [{name: http}]}}", "spec.ports[0]"),
        ("Deployment", POD % "{containers: [{image: x}]}", "spec.template.spec.containers[0]"),
        ("Deployment", POD % "{containers: [{name: a, env: [{}]}]}", "spec.template.spec.containers.env[0]"),
        ("Service", "{apiVersion: v2}", "apiVersion"),
        ("Service", "{kind: Pod}", "kind"),
        ("Service", "{status: {}}", "status"),
        ("Service", "{metadata: null}", "metadata.name"),
        ("Service", "{metadata: {$patch: replace}}", "metadata.name"),
        ("Service", "{metadata: {name: a}}", "metadata.name"),
        ("Service", "{metadata: {finalizers: []}}", "metadata.finalizers"),
        (
            "Service",
            "{metadata: {labels: {app.kubernetes.io/instance: a}}}",
            "metadata.labels.app.kubernetes.io/instance",
        ),
        ("Service", "{metadata: {labels: {gateway.istio.io/managed: a}}}", "metadata.labels.gateway.istio.io/managed"),
        ("Service", "{spec: {selector: {a: b}}}", "spec.selector"),
        ("Deployment", "{spec: {template: null}}", "spec.template.spec.serviceAccountName"),
        ("Deployment", POD % "{serviceAccountName: admin}", "spec.template.spec.serviceAccountName"),
        ("DaemonSet", POD % "{serviceAccount: admin}", "spec.template.spec.serviceAccount"),
        ("HorizontalPodAutoscaler", "{spec: {scaleTargetRef: {}}}", "spec.scaleTargetRef"),
    ],
)
def test_what_is_no_patch_or_makes_another_object_is_refused(kind: str, patch: str, path: str) -> None:
    assert path in [found for found, _message in check_overlay(kind, read(patch))]
