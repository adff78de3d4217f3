"""What istiod tells node proxies: its workload discovery (WDS), asked as a proxy of some ServiceAccount would."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import grpc.aio
import msgspec
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tests.cluster.istiod import Istiod

ADDRESS: Final = "type.googleapis.com/istio.workload.Address"
_METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_Field = descriptor_pb2.FieldDescriptorProto

# Of ztunnel's workload.proto, as far as it is read here: fields by message, with a number and a type.
_MESSAGES: Final[dict[str, dict[str, tuple[int, str]]]] = {
    "NetworkAddress": {"network": (1, "string"), "address": (2, "bytes")},
    "NamespacedHostname": {"namespace": (1, "string"), "hostname": (2, "string")},
    "GatewayAddress": {"hostname": (1, "NamespacedHostname"), "address": (2, "NetworkAddress"), "port": (3, "uint32")},
    "Service": {
        "name": (1, "string"),
        "namespace": (2, "string"),
        "hostname": (3, "string"),
        "waypoint": (7, "GatewayAddress"),
    },
    "Workload": {
        "name": (1, "string"),
        "namespace": (2, "string"),
        "tunnel_protocol": (5, "int32"),
        "waypoint": (8, "GatewayAddress"),
        "uid": (20, "string"),
    },
    "Address": {"workload": (1, "Workload"), "service": (2, "Service")},
}
_SCALARS: Final = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "uint32": _Field.TYPE_UINT32,
    "int32": _Field.TYPE_INT32,
}


def _address_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="tests/workload.proto", package="workload", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            made = message.field.add(name=field, number=number, label=_Field.LABEL_OPTIONAL)
            if kind in _SCALARS:
                made.type = _SCALARS[kind]
            else:
                made.type, made.type_name = _Field.TYPE_MESSAGE, f".workload.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("workload.Address"))


_Address: Final = _address_class()


class Told(msgspec.Struct, frozen=True):
    """One Service or workload; `waypoint` is `<namespace>/<hostname>:<port>` or `<ip>:<port>`, "" for none."""

    name: str
    namespace: str
    waypoint: str = ""
    hbone: bool = False


async def ask_workloads(
    istiod: Istiod, namespace: str, account: str, *, within: float = 30.0
) -> dict[tuple[str, str], Told]:
    """Return what istiod tells of all Services (`("service", name)`) and pods (`("workload", name)`) of a namespace.

    The first answer only: what changes later is not waited for.
    """
    token = istiod.cluster.token(namespace, account, audience="istio-ca")
    node: dict[str, Any] = {
        "id": f"ztunnel~192.0.2.1~{account}.{namespace}~{namespace}.svc.cluster.local",
        "metadata": {"NAME": account, "NAMESPACE": namespace, "CLUSTER_ID": "Kubernetes"},
    }
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=ADDRESS, resource_names_subscribe=["*"])
    request.node.id = node["id"]
    request.node.metadata.update(node["metadata"])
    credentials = grpc.ssl_channel_credentials(istiod.roots())
    options = [("grpc.ssl_target_name_override", "istiod.istio-system.svc"), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.secure_channel(istiod.address, credentials, options=options) as channel:
        call = channel.stream_stream(
            _METHOD,
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )(None, timeout=within, metadata=(("authorization", f"Bearer {token}"),))
        await call.write(request)
        answer = await anext(_answers(call))
        call.cancel()
    told = itertools.chain.from_iterable(_read(resource.resource.value) for resource in answer.resources)
    return {key: row for key, row in told if row.namespace == namespace}


async def _answers(call: Any) -> AsyncIterator[Any]:
    async for answer in call:
        if answer.type_url == ADDRESS:
            yield answer


def _read(value: bytes) -> Iterable[tuple[tuple[str, str], Told]]:
    address = _Address.FromString(value)
    for kind in ("service", "workload"):
        if address.HasField(kind):
            row = getattr(address, kind)
            yield (
                (kind, row.name),
                Told(
                    name=row.name,
                    namespace=row.namespace,
                    waypoint=_place(row.waypoint) if row.HasField("waypoint") else "",
                    hbone=kind == "workload" and row.tunnel_protocol == 1,
                ),
            )


def _place(gateway: Any) -> str:
    if gateway.HasField("hostname"):
        return f"{gateway.hostname.namespace}/{gateway.hostname.hostname}:{gateway.port}"
    return f"{'.'.join(map(str, gateway.address.address))}:{gateway.port}"
