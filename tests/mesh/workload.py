"""What istiod tells node proxies of Services and workloads, read from `istio.workload.Address`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

TYPE: Final = "type.googleapis.com/istio.workload.Address"
_HBONE: Final = 1
_HEALTHY: Final = 0
_DEFAULT_TRUST_DOMAIN: Final = "cluster.local"
_Field = descriptor_pb2.FieldDescriptorProto

# Fields by message, with a number and a type; "*" marks a repeated one. A map is its entries, repeated.
_MESSAGES: Final[Mapping[str, Mapping[str, tuple[int, str]]]] = {
    "NetworkAddress": {"network": (1, "string"), "address": (2, "bytes")},
    "NamespacedHostname": {"namespace": (1, "string"), "hostname": (2, "string")},
    "GatewayAddress": {"hostname": (1, "NamespacedHostname"), "address": (2, "NetworkAddress"), "port": (3, "uint32")},
    "Port": {"service_port": (1, "uint32"), "target_port": (2, "uint32")},
    "PortList": {"ports": (1, "Port*")},
    "ServicePorts": {"key": (1, "string"), "value": (2, "PortList")},
    "Service": {
        "name": (1, "string"),
        "namespace": (2, "string"),
        "hostname": (3, "string"),
        "addresses": (4, "NetworkAddress*"),
        "ports": (5, "Port*"),
        "subject_alt_names": (6, "string*"),
        "waypoint": (7, "GatewayAddress"),
    },
    "Workload": {
        "name": (1, "string"),
        "namespace": (2, "string"),
        "addresses": (3, "bytes*"),
        "tunnel_protocol": (5, "int32"),
        "trust_domain": (6, "string"),
        "service_account": (7, "string"),
        "waypoint": (8, "GatewayAddress"),
        "status": (17, "int32"),
        "uid": (20, "string"),
        "services": (22, "ServicePorts*"),
    },
    "Address": {"workload": (1, "Workload"), "service": (2, "Service")},
}
_SCALARS: Final = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "uint32": _Field.TYPE_UINT32,
    "int32": _Field.TYPE_INT32,
}


class Waypoint(msgspec.Struct, frozen=True):
    """Where a waypoint is: a Service by `<namespace>/<hostname>`, or an address; the other one is empty."""

    service: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.service or self.address}:{self.port}"


class Service(msgspec.Struct, frozen=True):
    """A Service; `ports` lead from its own ports to those of its workloads."""

    name: str
    namespace: str
    hostname: str
    addresses: tuple[str, ...]
    ports: Mapping[int, int]
    names: tuple[str, ...]
    """Identities that its workloads may have beside their own."""

    waypoint: Waypoint | None

    @property
    def key(self) -> str:
        """What workloads and waypoints name it by."""
        return f"{self.namespace}/{self.hostname}"


class Workload(msgspec.Struct, frozen=True):
    """A pod, or what else has an address; `services` has the ports by the key of each Service that it is part of."""

    uid: str
    name: str
    namespace: str
    addresses: tuple[str, ...]
    trust_domain: str
    account: str
    hbone: bool
    healthy: bool
    services: Mapping[str, Mapping[int, int]]
    waypoint: Waypoint | None

    @property
    def identity(self) -> str:
        """Who its certificate must say that it is."""
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.account}"


def read(encoded: bytes) -> Service | Workload:
    """Return what an encoded `Address` holds; raises DecodeError, and ValueError if it is neither."""
    address = _Address.FromString(encoded)
    if address.HasField("service"):
        return _service(address.service)
    if address.HasField("workload"):
        return _workload(address.workload)
    raise ValueError("an address that is neither a Service nor a workload")


def _service(row: Any) -> Service:
    return Service(
        name=row.name,
        namespace=row.namespace,
        hostname=row.hostname,
        addresses=tuple(_text(found.address) for found in row.addresses),
        ports=_ports(row.ports),
        names=tuple(row.subject_alt_names),
        waypoint=_waypoint(row),
    )


def _workload(row: Any) -> Workload:
    return Workload(
        uid=row.uid,
        name=row.name,
        namespace=row.namespace,
        addresses=tuple(map(_text, row.addresses)),
        trust_domain=row.trust_domain or _DEFAULT_TRUST_DOMAIN,
        account=row.service_account or "default",
        hbone=row.tunnel_protocol == _HBONE,
        healthy=row.status == _HEALTHY,
        services={entry.key: _ports(entry.value.ports) for entry in row.services},
        waypoint=_waypoint(row),
    )


def _waypoint(row: Any) -> Waypoint | None:
    if not row.HasField("waypoint"):
        return None
    found = row.waypoint
    if found.HasField("hostname"):
        return Waypoint(f"{found.hostname.namespace}/{found.hostname.hostname}", "", found.port)
    return Waypoint("", _text(found.address.address), found.port)


def _ports(ports: Any) -> dict[int, int]:
    return {port.service_port: port.target_port for port in ports}


def _text(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))


def _address_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="tests/workload.proto", package="workload", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            label = _Field.LABEL_REPEATED if kind.endswith("*") else _Field.LABEL_OPTIONAL
            made = message.field.add(name=field, number=number, label=label)
            one = kind.removesuffix("*")
            if one in _SCALARS:
                made.type = _SCALARS[one]
            else:
                made.type, made.type_name = _Field.TYPE_MESSAGE, f".workload.{one}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("workload.Address"))


_Address: Final = _address_class()
