"""Walks over plain documents beside the structs they decode to."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, get_args

from msgspec import Struct
from msgspec.structs import fields

FieldPath = str
"""A path such as ``spec.rules[0].matches``; empty for the document itself."""

_Plan = Mapping[str, type[Struct] | None]

_NOT_REPORTED: Final = {"apiVersion", "kind", "metadata", "status"}


def unknown_fields(document: Mapping[str, Any], struct: type[Struct]) -> tuple[FieldPath, ...]:
    """Paths of the fields the struct does not know, in document order; metadata and status are left out."""
    found: list[FieldPath] = []
    plan = _plan(struct)
    for name, value in document.items():
        if name in _NOT_REPORTED:
            continue
        if name not in plan:
            found.append(str(name))
        elif (inner := plan[name]) is not None:
            _walk(value, inner, name, found)
    return tuple(found)


def _walk(value: object, struct: type[Struct], path: FieldPath, found: list[FieldPath]) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            _walk(item, struct, f"{path}[{index}]", found)
    elif isinstance(value, dict):
        plan = _plan(struct)
        for name, item in value.items():
            if name not in plan:
                found.append(f"{path}.{name}")
            elif (inner := plan[name]) is not None:
                _walk(item, inner, f"{path}.{name}", found)


@cache
def _plan(struct: type[Struct]) -> _Plan:
    """Field names of a struct, each with the struct of its value or items."""
    return {field.encode_name: _struct_in(field.type) for field in fields(struct)}


def _struct_in(annotation: Any) -> type[Struct] | None:
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return annotation
    return next((found for part in get_args(annotation) if (found := _struct_in(part)) is not None), None)


def null_fields(value: object, path: FieldPath) -> tuple[FieldPath, ...]:
    """Paths of all nulls, in document order."""
    if value is None:
        return (path,)
    if isinstance(value, Mapping):
        return tuple(found for name, item in value.items() for found in null_fields(item, f"{path}.{name}"))
    if isinstance(value, list):
        return tuple(found for index, item in enumerate(value) for found in null_fields(item, f"{path}[{index}]"))
    return ()


def without_nulls(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document without the fields that are null; nulls that are list items stay, for they are no values."""
    return {name: _without_nulls(value) for name, value in document.items() if value is not None}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_nulls(value)
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
