"""Messages of `istio.v1.auth.IstioCertificateService`, built at run time from the field numbers in `istio_ca.proto`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, struct_pb2

SERVICE: Final = "istio.v1.auth.IstioCertificateService"
METHOD: Final = "CreateCertificate"
PATH: Final = f"/{SERVICE}/{METHOD}"

IMPERSONATED_IDENTITY: Final = "ImpersonatedIdentity"
"""Key of the request metadata by which a node proxy asks for the certificate of another workload."""

_PACKAGE: Final = "istio.v1.auth"
_Field = descriptor_pb2.FieldDescriptorProto


def describe_file() -> descriptor_pb2.FileDescriptorProto:
    """Return the descriptor that `istio_ca.proto` documents."""
    file = descriptor_pb2.FileDescriptorProto(
        name="meshgw/identity/istio_ca.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[struct_pb2.DESCRIPTOR.name],
    )
    request = file.message_type.add(name="IstioCertificateRequest")
    request.field.add(name="csr", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    request.field.add(name="validity_duration", number=3, type=_Field.TYPE_INT64, label=_Field.LABEL_OPTIONAL)
    request.field.add(
        name="metadata",
        number=4,
        type=_Field.TYPE_MESSAGE,
        type_name=".google.protobuf.Struct",
        label=_Field.LABEL_OPTIONAL,
    )
    request.reserved_range.add(start=2, end=3)
    response = file.message_type.add(name="IstioCertificateResponse")
    response.field.add(name="cert_chain", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_REPEATED)
    service = file.service.add(name="IstioCertificateService")
    service.method.add(
        name=METHOD,
        input_type=f".{_PACKAGE}.IstioCertificateRequest",
        output_type=f".{_PACKAGE}.IstioCertificateResponse",
    )
    return file


def _message_class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


# A pool of our own: another library may register the same names in the default one.
_POOL: Final = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
_POOL.AddSerializedFile(describe_file().SerializeToString())
_Request: Final = _message_class("IstioCertificateRequest")
_Response: Final = _message_class("IstioCertificateResponse")


class CertificateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for one certificate: the CSR in PEM, seconds of lifetime (0: the CA's default) and metadata."""

    csr: str
    validity_seconds: int = 0
    metadata: Mapping[str, object] = {}

    def encode(self) -> bytes:
        """Return the request in wire format."""
        message = _Request(csr=self.csr, validity_duration=self.validity_seconds)
        if self.metadata:
            message.metadata.update(self.metadata)
        encoded: bytes = message.SerializeToString()
        return encoded

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Return the request in `encoded`; raises `google.protobuf.message.DecodeError`."""
        message = _Request.FromString(encoded)
        return cls(
            csr=message.csr,
            validity_seconds=message.validity_duration,
            metadata=json_format.MessageToDict(message.metadata),
        )


class CertificateResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What the CA issued, in PEM: the leaf, the intermediates, and last the bundle of roots."""

    cert_chain: tuple[str, ...]

    def encode(self) -> bytes:
        """Return the response in wire format."""
        encoded: bytes = _Response(cert_chain=self.cert_chain).SerializeToString()
        return encoded

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Return the response in `encoded`; raises `google.protobuf.message.DecodeError`."""
        return cls(cert_chain=tuple(_Response.FromString(encoded).cert_chain))
