"""The structs against the published schemas: schema.json lists their fields, defaults and enumerations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest
from msgspec.structs import fields

from meshgw.api.registry import KINDS

SCHEMA: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "schema.json").read_text())
# v1alpha2, still served, allows a TLSRoute without host names.
LENIENT = {"TLSRoute.spec.hostnames"}


def parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        if get_origin(annotation) is not Literal:
            yield from parts(part)


def struct_in(annotation: Any) -> type[msgspec.Struct] | None:
    found = [part for part in parts(annotation) if isinstance(part, type) and issubclass(part, msgspec.Struct)]
    return found[0] if found else None


def walk(struct: type[msgspec.Struct], path: str) -> Iterator[tuple[str, Any]]:
    for field in fields(struct):
        yield f"{path}.{field.encode_name}", field
        inner = struct_in(field.type)
        if inner is not None and not inner.__name__.startswith("LabelSelector"):
            yield from walk(inner, f"{path}.{field.encode_name}")


def known() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in KINDS:
        spec = next((field for field in fields(kind.struct) if field.name == "spec"), None)
        struct = struct_in(spec.type) if spec else None
        if kind.group in {"gateway.networking.k8s.io", "security.istio.io"} and struct is not None:
            found.update(walk(struct, f"{kind.name}.spec"))
    return found


KNOWN = known()


def test_the_structs_have_every_field_of_the_experimental_channel_and_no_other() -> None:
    published = {path for path in SCHEMA if ".selector.match" not in path or path.startswith("AuthorizationPolicy")}
    assert set(KNOWN) == published


@pytest.mark.parametrize("path", sorted(KNOWN))
def test_a_field_is_required_and_defaulted_as_published(path: str) -> None:
    field, published = KNOWN[path], SCHEMA[path]
    if path not in LENIENT:
        assert field.required == published.get("required", False)
    if "default" not in published:
        return
    default = msgspec.convert(published["default"], field.type)
    assert field.default == default


@pytest.mark.parametrize("path", sorted(path for path in SCHEMA if "enum" in SCHEMA[path]))
def test_an_enumeration_has_the_published_values(path: str) -> None:
    values = {value for part in parts(KNOWN[path].type) if get_origin(part) is Literal for value in get_args(part)}
    assert values == set(SCHEMA[path]["enum"])
