from __future__ import annotations

import gc

import pytest

from meshgw.api.meta import Key, ObjectRef
from meshgw.files.source import Decoder, FileProblem, Source

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {}\n"


def read(text: str, path: str = "a.yaml") -> Source:
    return Decoder().read(path, text.encode())


def test_an_object_is_claimed_at_its_first_line() -> None:
    source = read("# head\n---\n\n# comment\n" + CONFIG.format("a") + "---\n" + CONFIG.format("b"))
    lines = {identity: [claim.line for claim in claims] for identity, claims in source.claims().items()}
    assert lines == {("ConfigMap", Key("default", "a")): [5], ("ConfigMap", Key("default", "b")): [10]}


def test_lists_are_expanded() -> None:
    text = """apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: a}
- apiVersion: v1
  kind: ServiceList
  items:
  - apiVersion: v1
    kind: Service
    metadata: {name: b}
    spec:
      ports: x
"""
    source = read(text)
    assert [(identity[0], claims[0].line) for identity, claims in source.claims().items()] == [
        ("ConfigMap", 4),
        ("Service", 10),
    ]
    (problem,) = source.problems()
    assert (problem.line, problem.field) == (14, "spec.ports")


def test_a_list_of_something_else_is_an_unknown_kind() -> None:
    source = read("apiVersion: apps/v1\nkind: DeploymentList\nitems: []\n")
    assert source.unknown_kinds() == {("apps/v1", "DeploymentList"): (1, 1)}


def test_json_is_read_with_its_lines() -> None:
    text = '{"apiVersion": "v1", "kind": "Service",\n "metadata": {"name": "a"},\n "spec": {"ports": 5}}'
    (problem,) = read(text, "a.json").problems()
    assert str(problem) == "a.json:3: MG9102: Service default/a: spec.ports: Expected `array`, got `int`"
    (broken,) = read('{\n"a" 1}', "a.json").problems()
    assert (broken.code, broken.line) == ("MG9101", 2)
    assert not list(read("null", "a.json").problems())


def test_json_that_is_no_yaml_is_told_by_its_first_line() -> None:
    (problem,) = read('{\n\t"apiVersion": "v1",\n\t"kind": "Service", "x": "\\ud83d\\ude00"}', "a.json").problems()
    assert (problem.code, problem.field) == ("MG9102", "metadata")


def test_deep_json_is_refused_as_deep_yaml_is() -> None:
    text = "{\n" + '"a": ' + '{"b": ' * 120 + "1" + "}" * 120 + ',\n"apiVersion": "v1", "kind": "Service"}'
    (deep,) = read(text, "b.json").problems()
    assert (deep.code, deep.line, deep.message) == ("MG9101", 1, "is nested more than 100 levels deep")


def test_a_wrong_field_is_told_by_the_nearest_line() -> None:
    text = CONFIG.format("a").replace("ConfigMap", "Service") + "spec:\n  type: Other\n"
    (problem,) = read("---\n" + text).problems()
    assert (problem.line, problem.field) == (7, "spec.type")
    (missing,) = read("apiVersion: v1\nkind: Service\nmetadata:\n  labels: {}\n").problems()
    assert (missing.line, missing.field, missing.object) == (3, "metadata.name", ObjectRef("Service", "default", ""))


def test_unknown_fields_are_one_problem_per_object() -> None:
    fields = "".join(f"x{number}: 1\n" for number in range(12))
    (problem,) = read(CONFIG.format("a") + fields).problems()
    assert (problem.code, problem.line, problem.field) == ("MG9105", 5, "x0")
    assert problem.message == "unknown: x0, x1, x2, x3, x4, x5, x6, x7, x8, x9 and 2 more"


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text\n", "17\n", '\'{"apiVersion": "v1", "kind": "Service"}\'\n'])
def test_what_is_no_object_is_a_problem(text: str) -> None:
    (problem,) = read(text).problems()
    assert str(problem) == "a.yaml:1: MG9102: a document must be an object with apiVersion and kind"


def test_bytes_that_are_no_text_are_broken() -> None:
    (problem,) = Decoder().read("a.yaml", b"a: b\nc: \xff\n").problems()
    assert (problem.code, problem.line, problem.message) == ("MG9101", 2, "is not UTF-8 text")


def test_line_ends_and_byte_order_marks_make_no_difference() -> None:
    text = CONFIG.format("a") + "---\n" + CONFIG.format("b")
    for other in (text.replace("\n", "\r\n"), text.replace("\n", "\r"), "\ufeff" + text):
        assert read(other) == read(text) or read(other).claims() == read(text).claims()


def test_a_text_is_decoded_once_while_it_is_held() -> None:
    decoder = Decoder()
    first = decoder.read("a.yaml", (CONFIG.format("a") + "---\n" + CONFIG.format("b")).encode())
    second = decoder.read("b.yaml", (CONFIG.format("c") + "---\n" + CONFIG.format("b")).encode())
    assert decoder.decoded == 3
    third = decoder.read("c.yaml", ("# x\n---\n" + CONFIG.format("b")).encode())
    assert decoder.decoded == 4
    assert third.documents[1][1] is first.documents[1][1]
    assert second.claims().keys() > third.claims().keys()


def test_a_text_that_is_no_longer_held_is_forgotten() -> None:
    decoder = Decoder()
    decoder.read("a.yaml", CONFIG.format("a").encode())
    gc.collect()
    decoder.read("a.yaml", CONFIG.format("a").encode())
    assert decoder.decoded == 2


def test_a_problem_of_a_whole_file_has_no_line() -> None:
    assert str(FileProblem(code="MG9106", file="a", line=0, message="is gone")) == "a: MG9106: is gone"
