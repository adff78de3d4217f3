from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshgw.api.core import ConfigMap
from meshgw.api.istio import AuthorizationPolicy
from meshgw.api.meta import Key, StrictResource
from meshgw.api.registry import REGISTRY
from meshgw.kube.errors import NamelessError, UnreachableError
from meshgw.kube.reading import WRONG_SHAPE, Reader
from meshgw.kube.seen import Seen

METADATA = {"name": "a", "namespace": "ns", "uid": "u1", "resourceVersion": "7", "generation": 3}


def read(kind: str, *, has_good: bool = False, metadata: dict[str, Any] | None = None, **fields: Any) -> Seen:
    found = REGISTRY.by_name(kind)
    assert found is not None
    reader = Reader(found)
    raw = msgspec.Raw(msgspec.json.encode({"metadata": metadata or METADATA, **fields}))
    return reader.read(reader.outline(raw), has_good=has_good)


def test_items_of_lists_do_not_say_what_they_are() -> None:
    seen = read("Service", spec={"ports": [{"port": 80}]})
    assert seen.object is not None
    assert seen.key == seen.object.key == Key("ns", "a")
    assert seen.object.spec.ports[0].protocol == "TCP"
    assert not seen.gone


def test_status_is_kept_of_kinds_whose_status_is_written() -> None:
    route = read("HTTPRoute", spec={}, status={"parents": []}).observed
    assert route is not None
    assert route.status == b'{"parents":[]}'
    assert (route.uid, route.resource_version, route.generation) == ("u1", "7", 3)
    pod = read("Pod", spec={}, status={"phase": "Running"}).observed
    assert pod is not None
    assert pod.status == b""


def test_nulls_are_absent_fields_and_managed_fields_nothing() -> None:
    metadata = {**METADATA, "labels": None, "managedFields": [{"fieldsV1": {"f:spec": {}}}]}
    seen = read("ConfigMap", metadata=metadata, data=None)
    assert seen.object is not None
    assert seen.problems == ()
    assert b"managed" not in msgspec.json.encode(seen.object)


def test_wrong_shape_keeps_what_was_known_and_names_object_and_field() -> None:
    for has_good in (True, False):
        seen = read("HTTPRoute", has_good=has_good, spec={"hostnames": [7]})
        assert seen.object is None
        assert not seen.gone
        (finding,) = seen.problems
        assert finding.code == WRONG_SHAPE
        assert str(finding.object) == "HTTPRoute ns/a"
        assert finding.field == "spec.hostnames[0]"


def test_rules_are_checked_too() -> None:
    seen = read("HTTPRoute", spec={"rules": [{"matches": [{"path": {"type": "Exact", "value": "no-slash"}}]}]})
    assert seen.object is None
    assert seen.problems[0].code == WRONG_SHAPE


def test_policy_that_cannot_be_read_is_stood_for_until_a_good_one_is_known() -> None:
    broken = {"spec": {"action": 7, "targetRefs": [{"kind": "Gateway", "group": "g", "name": "gw"}]}}
    seen = read("AuthorizationPolicy", **broken)
    assert isinstance(seen.object, AuthorizationPolicy)
    assert seen.object.unreadable
    assert seen.object.spec.target_refs[0].name == "gw"
    assert seen.problems[0].field == "spec.action"
    assert read("AuthorizationPolicy", has_good=True, **broken).object is None


def test_policy_says_what_of_it_is_not_understood() -> None:
    seen = read("AuthorizationPolicy", spec={"action": "ALLOW", "novelty": 1, "rules": None})
    assert isinstance(seen.object, StrictResource)
    assert set(seen.object.unknown_fields) == {"spec.novelty", "spec.rules"}


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b'{"type": "ADDED"}', b'{"type": 7, "object": {}}', b"\xff", b'{"type":"A","object":']
)
def test_lines_that_are_none_are_like_a_broken_wire(line: bytes) -> None:
    reader = Reader(REGISTRY.kinds[0])
    with pytest.raises(UnreachableError, match="not from a Kubernetes API server"):
        reader.event(line)


@pytest.mark.parametrize("document", [b"7", b"{}", b'{"metadata": []}', b'{"metadata": {"name": 7}}'])
def test_documents_without_identity_are_told_from_a_broken_wire(document: bytes) -> None:
    with pytest.raises(NamelessError):
        Reader(REGISTRY.kinds[0]).outline(msgspec.Raw(document))


def test_deep_documents_have_an_identity_still() -> None:
    deep = b'{"spec": ' + b"[" * 5000 + b"]" * 5000 + b', "metadata": {"name": "a"}}'
    assert Reader(REGISTRY.kinds[0]).outline(msgspec.Raw(deep)).key == Key("", "a")


def test_deep_status_is_none_for_those_who_write_it() -> None:
    status: Any = {}
    for _ in range(150):
        status = {"a": status}
    observed = read("HTTPRoute", spec={}, status=status).observed
    assert observed is not None
    assert observed.status == b""


def test_what_nobody_reads_is_not_kept() -> None:
    metadata = {**METADATA, "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "all of it"}}
    seen = read("ConfigMap", metadata=metadata, data={"ca.crt": "a", "junk": "b"}, binaryData={"junk": "YQ=="})
    assert isinstance(seen.object, ConfigMap)
    assert (seen.object.data, seen.object.binary_data) == ({"ca.crt": "a"}, {})
    assert seen.object.metadata.annotations == {}
    assert seen.problems == ()


def test_values_that_are_too_long_are_left_out_and_named() -> None:
    seen = read("ConfigMap", data={"ca.crt": "x" * (256 * 1024 + 1), "mesh": "m", "junk": "x" * 300_000})
    assert isinstance(seen.object, ConfigMap)
    assert seen.object.data == {"mesh": "m"}
    assert [(finding.code, finding.field) for finding in seen.problems] == [(WRONG_SHAPE, "data[ca.crt]")]


def test_end_of_a_streaming_list_is_told() -> None:
    reader = Reader(REGISTRY.kinds[0])
    mark = b'{"metadata": {"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}}'
    assert reader.outline(msgspec.Raw(mark)).ends_initial
    assert not reader.outline(msgspec.Raw(b'{"metadata": {"name": "a"}}')).ends_initial
