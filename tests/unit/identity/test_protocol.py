from __future__ import annotations

import re
from importlib import resources

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.message import DecodeError

from meshgw.identity.protocol import PATH, CertificateRequest, CertificateResponse, describe_file

PROTO = resources.files("meshgw.identity").joinpath("istio_ca.proto").read_text("utf-8")
TYPES = {
    FieldDescriptorProto.TYPE_STRING: "string",
    FieldDescriptorProto.TYPE_INT64: "int64",
    FieldDescriptorProto.TYPE_MESSAGE: "google.protobuf.Struct",
}


def test_proto_file_and_descriptor_declare_the_same_messages() -> None:
    documented = {
        (message, bool(repeated), kind, name, int(number))
        for message, body in re.findall(r"^message (\w+) \{\n(.*?)^\}", PROTO, re.MULTILINE | re.DOTALL)
        for repeated, kind, name, number in re.findall(r"^  (repeated )?([\w.]+) (\w+) = (\d+);", body, re.MULTILINE)
    }
    built = {
        (message.name, field.label == FieldDescriptorProto.LABEL_REPEATED, TYPES[field.type], field.name, field.number)
        for message in describe_file().message_type
        for field in message.field
    }
    assert documented == built
    reserved = [int(number) for number in re.findall(r"^  reserved (\d+);", PROTO, re.MULTILINE)]
    assert reserved == [gap.start for message in describe_file().message_type for gap in message.reserved_range] == [2]
    assert len(built) == 4


def test_proto_file_and_descriptor_declare_the_same_service() -> None:
    file = describe_file()
    (package,) = re.findall(r"^package ([\w.]+);", PROTO, re.MULTILINE)
    (service,) = re.findall(r"^service (\w+) \{", PROTO, re.MULTILINE)
    (method,) = re.findall(r"rpc (\w+)\((\w+)\) returns \((\w+)\);", PROTO)
    built = file.service[0].method[0]
    assert (file.package, file.service[0].name) == (package, service)
    assert method == (built.name, built.input_type.rpartition(".")[2], built.output_type.rpartition(".")[2])
    assert f"/{package}.{service}/{method[0]}" == PATH == "/istio.v1.auth.IstioCertificateService/CreateCertificate"


def test_request_has_the_wire_format_of_istio() -> None:
    key, value = b"\x0a\x02id", b"\x12\x03\x1a\x01x"  # map entry: key=1 "id", value=2 {string_value=3 "x"}
    entry = b"\x0a" + bytes([len(key + value)]) + key + value
    expected = b"\x0a\x03csr" + b"\x18\x90\x1c" + b"\x22" + bytes([len(entry)]) + entry
    request = CertificateRequest(csr="csr", validity_seconds=3600, metadata={"id": "x"})
    assert request.encode() == expected
    assert CertificateRequest.decode(expected) == request


def test_request_without_lifetime_and_metadata_is_the_csr_alone() -> None:
    assert CertificateRequest(csr="csr").encode() == b"\x0a\x03csr"
    assert CertificateRequest.decode(b"\x0a\x03csr") == CertificateRequest(csr="csr")


def test_response_has_the_wire_format_of_istio() -> None:
    response = CertificateResponse(cert_chain=("leaf", "root"))
    assert response.encode() == b"\x0a\x04leaf\x0a\x04root"
    assert CertificateResponse.decode(response.encode()) == response


@pytest.mark.parametrize("message", [CertificateRequest, CertificateResponse])
def test_bytes_that_are_no_message_raise_decode_error(
    message: type[CertificateRequest | CertificateResponse],
) -> None:
    with pytest.raises(DecodeError):
        message.decode(b"\x0a\xff")
