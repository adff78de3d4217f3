"""Resources as documents: plain, in one order, without keys."""

from __future__ import annotations

import subprocess
import sys

from meshgw.emit.dump import dump, reveal
from meshgw.emit.hcm import access_log
from meshgw.emit.resource import LISTENER, SECRET, Resource
from meshgw.emit.secret import certificate_secret
from meshgw.protos import FilterChain, Listener, encode


def _listener() -> Resource:
    built = Listener(name="tcp/80", access_log=[access_log(http=True)], filter_chains=[FilterChain(name="all")])
    return Resource.of(LISTENER, built.name, encode(built))


def test_a_document_is_plain_values_in_order_of_name() -> None:
    document = dump(_listener())
    assert list(document) == ["name", "access_log", "filter_chains"]
    config = document["access_log"][0]["typed_config"]
    assert type(config) is dict
    assert next(iter(config)) == "@type"
    fields = list(config["log_format"]["json_format"])
    assert fields == sorted(fields)


def test_two_processes_write_the_same_document() -> None:
    program = (
        "import json; from meshgw.emit.dump import dump; from meshgw.emit.hcm import access_log\n"
        "from meshgw.protos import Listener, encode; from meshgw.emit.resource import LISTENER, Resource\n"
        "built = Listener(name='tcp/80', access_log=[access_log(http=True)])\n"
        "print(json.dumps(dump(Resource.of(LISTENER, built.name, encode(built)))))"
    )
    written = {subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout for _ in "ab"}
    assert len(written) == 1


def test_a_private_key_is_revealed_only_for_what_is_to_run() -> None:
    secret = certificate_secret("certificate/default/tls", b"chain", b"the key")
    resource = Resource.of(SECRET, secret.name, encode(secret))
    assert dump(resource)["tls_certificate"]["private_key"] == {"inline_string": "[redacted]"}
    assert reveal(resource)["tls_certificate"]["private_key"]["inline_bytes"]
