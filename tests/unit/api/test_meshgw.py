"""The structs of our API against its CustomResourceDefinition: the same fields, limits and values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import pytest
import yaml
from msgspec.structs import fields

from meshgw.api.check_meshgw import RESERVED_ARGUMENTS, RESERVED_ENV, RESERVED_MOUNTS, RESERVED_VOLUMES
from meshgw.api.meshgw import GatewayParametersSpec, Native
from meshgw.api.registry import REGISTRY

CRD = yaml.safe_load(Path("manifests/crds/meshgw.dev_gatewayparameters.yaml").read_text())
(VERSION,) = CRD["spec"]["versions"]
SPEC = VERSION["schema"]["openAPIV3Schema"]["properties"]["spec"]
LIMITS = {"ge": "minimum", "le": "maximum", "min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"}


def struct_in(annotation: Any) -> type[msgspec.Struct] | None:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    return next((found for part in get_args(annotation) if (found := struct_in(part)) is not None), None)


def schemas(schema: Mapping[str, Any], struct: type[msgspec.Struct], path: str) -> Iterator[tuple[str, Any, Any]]:
    """Each field of a struct with its schema, depth first; a field that only one of them has is an error."""
    known = {field.encode_name: field for field in fields(struct)}
    assert set(schema["properties"]) == set(known), path
    assert set(schema.get("required", ())) == {name for name, field in known.items() if field.required}, path
    for name, field in known.items():
        below = schema["properties"][name]
        yield f"{path}.{name}", field, below
        inner = struct_in(field.type)
        if inner is not None:
            yield from schemas(below.get("items", below), inner, f"{path}.{name}")


FIELDS = {path: (field, schema) for path, field, schema in schemas(SPEC, GatewayParametersSpec, "spec")}


def bare(annotation: Any) -> tuple[Any, dict[str, Any]]:
    """A type without None and its annotations, and the limits that these state."""
    options = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) in {Union, type(int | None)} and len(options) == 1:
        return bare(options[0])
    if get_origin(annotation) is not Annotated:
        return annotation, {}
    inner, *metas = get_args(annotation)
    limits = {
        LIMITS[name]: getattr(meta, name) for meta in metas for name in LIMITS if getattr(meta, name, None) is not None
    }
    return inner, limits


def check(annotation: Any, schema: Mapping[str, Any]) -> None:
    """Hold one type against one schema."""
    kind, limits = bare(annotation)
    if kind == Native:
        assert schema["x-kubernetes-preserve-unknown-fields"] is True
    elif get_origin(kind) is Literal:
        assert (schema["type"], set(schema["enum"])) == ("string", set(get_args(kind)))
    elif get_origin(kind) is tuple:
        assert schema["type"] == "array"
        shown = {name: schema.get(name.replace("Length", "Items")) for name in limits}
        assert shown == limits
        if struct_in(kind) is None:
            check(get_args(kind)[0], schema["items"])
    elif isinstance(get_origin(kind), type) and issubclass(get_origin(kind), Mapping):
        assert schema["type"] == "object"
        check(get_args(kind)[1], schema["additionalProperties"])
    elif set(get_args(kind)) & {int, str} or get_origin(kind) in {Union, type(int | str)}:
        assert schema["x-kubernetes-int-or-string"] is True
    elif struct_in(kind) is not None:
        assert schema["type"] == "object"
    else:
        assert schema["type"] == {int: "integer", str: "string", bool: "boolean"}[kind]
        stated = {name: schema[name] for name in LIMITS.values() if name in schema}
        assert {**stated, "pattern": None} == {**limits, "pattern": None}
        assert ("pattern" in stated) == ("pattern" in limits)
        if "pattern" in limits:
            assert re.sub(r"\\Z$", "$", limits["pattern"]) == stated["pattern"]


@pytest.mark.parametrize("path", sorted(FIELDS))
def test_a_field_is_what_the_definition_says(path: str) -> None:
    field, schema = FIELDS[path]
    check(field.type, schema)


@pytest.mark.parametrize("path", sorted(FIELDS))
def test_a_field_is_described_and_has_no_default(path: str) -> None:
    field, schema = FIELDS[path]
    assert schema["description"].endswith(".")
    assert "default" not in schema
    assert field.required or field.default is None or field.default_factory is dict


def test_the_definition_is_of_the_registered_kind() -> None:
    kind = REGISTRY.by_name("GatewayParameters")
    assert kind is not None
    assert (CRD["spec"]["group"], VERSION["name"]) == (kind.group, kind.versions[0])
    names = CRD["spec"]["names"]
    assert (names["kind"], names["plural"]) == (kind.name, kind.plural)
    assert CRD["spec"]["scope"] == "Namespaced"
    assert CRD["metadata"]["name"] == f"{kind.plural}.{kind.group}"


def rules(path: str) -> str:
    """The expressions of the rules for one item of a list."""
    return " ".join(rule["rule"] for rule in FIELDS[path][1]["items"]["x-kubernetes-validations"])


def test_the_definition_reserves_what_the_controller_does() -> None:
    (pattern,) = re.findall(r"\^\((.*?)\)\(=\|\$\)", rules("spec.envoy.extraArgs"))
    assert set(pattern.split("|")) == set(RESERVED_ARGUMENTS)
    for field, reserved in (
        ("env", RESERVED_ENV),
        ("volumes", RESERVED_VOLUMES),
        ("volumeMounts", RESERVED_MOUNTS),
    ):
        assert set(re.findall(r"'([^']+)'", rules(f"spec.podTemplate.{field}"))) == reserved


def test_printer_columns_show_fields_that_exist() -> None:
    paths = {column["jsonPath"].removeprefix(".") for column in VERSION["additionalPrinterColumns"]}
    assert paths - set(FIELDS) == {"metadata.creationTimestamp"}
