"""istiod's workload discovery, followed as a node proxy does: delta xDS, all addresses, acknowledged."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

from tests.mesh.workload import TYPE

SERVER_NAME: Final = "istiod.istio-system.svc"
_METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


async def follow(
    address: str, *, roots: bytes, token: str, namespace: str, account: str, node: str = ""
) -> AsyncGenerator[Any]:
    """Yield the responses of istiod at `address` to a proxy of this ServiceAccount; the first one has everything.

    Raises `grpc.aio.AioRpcError` when the stream breaks, as it does whenever istiod goes.
    """
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=TYPE, resource_names_subscribe=["*"])
    request.node.id = f"ztunnel~192.0.2.1~{account}.{namespace}~{namespace}.svc.cluster.local"
    metadata = {"NAME": account, "NAMESPACE": namespace, "NODE_NAME": node, "CLUSTER_ID": "Kubernetes"}
    request.node.metadata.update(metadata)
    options = [
        ("grpc.ssl_target_name_override", SERVER_NAME),
        ("grpc.max_receive_message_length", -1),
        ("grpc.keepalive_time_ms", 10_000),  # it may be gone without a word
        ("grpc.enable_http_proxy", 0),
    ]
    credentials = grpc.ssl_channel_credentials(roots)
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        call = channel.stream_stream(
            _METHOD,
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )(None, metadata=(("authorization", f"Bearer {token}"),))
        try:
            await call.write(request)
            async for response in call:
                if response.type_url == TYPE:
                    yield response
                    nonce = response.nonce
                    await call.write(discovery_pb2.DeltaDiscoveryRequest(type_url=TYPE, response_nonce=nonce))
        finally:
            call.cancel()
