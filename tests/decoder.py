"""A second opinion on emitted bytes: decoded by envoy-data-plane, whose codec and schema share nothing with ours."""

from __future__ import annotations

import importlib
import re
import warnings
from typing import Any

from meshgw.emit.resource import Resource

_PREFIX = "type.googleapis.com/"


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
    package, _, name = type_url.removeprefix(_PREFIX).rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its classes are written for an older pydantic
        return getattr(importlib.import_module(f"envoy_data_plane.{package}"), name)
