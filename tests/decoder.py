"""A second opinion on emitted bytes: decoded by envoy-data-plane, whose codec and schema share nothing with ours."""

from __future__ import annotations

import importlib
import re
import warnings
from typing import Any

from meshgw.emit.resource import Resource

_PREFIX = "type.googleapis.com/"
_ELSEWHERE = {"xds.type.matcher.v3.IPMatcher": "tests.ip_matcher"}
"""Modules of messages that it leaves out."""


def decode(resource: Resource) -> Any:
    """Return the resource as protobuf's JSON mapping has it (lower camel case), `Any` unpacked."""
    message = message_class(resource.type_url).parse(resource.body)
    while True:
        try:
            return message.to_dict()
        except TypeError as error:
            packed = re.search(rf"unregistered type: {_PREFIX}([\w.]+)", str(error))
            if packed is None:
                raise
            message_class(_PREFIX + packed[1])


def message_class(type_url: str) -> Any:
    """Return envoy-data-plane's class of a type, which importing its module registers."""
    full_name = type_url.removeprefix(_PREFIX)
    package, _, name = full_name.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its classes are written for an older pydantic
        module = importlib.import_module(_ELSEWHERE.get(full_name, f"envoy_data_plane.{package}"))
    return next(found for own, found in vars(module).items() if own.lower() == name.lower())  # it writes RBAC as Rbac
