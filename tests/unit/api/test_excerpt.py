from __future__ import annotations

from meshgw.api.core import ConfigMap, Namespace, Secret
from meshgw.api.excerpt import KEYS, MAX_VALUE, excerpt
from meshgw.api.meta import ObjectMeta
from meshgw.cluster.identity import ROOTS_KEY
from meshgw.cluster.meshconfig import MESH_KEY
from meshgw.resolve.certificates import _CHAIN, _KEY, _ROOTS

METADATA = ObjectMeta(name="a", namespace="ns", labels={"l": "v"}, annotations={"a": "v"})


def test_all_that_is_read_is_kept() -> None:
    assert {ConfigMap: {_ROOTS, ROOTS_KEY, MESH_KEY}, Secret: {_CHAIN, _KEY, _ROOTS}} == KEYS


def test_rest_goes() -> None:
    secret = Secret(metadata=METADATA, type="t", data={"tls.key": b"k", "password": b"p"})
    kept, long = excerpt(secret)
    assert kept == Secret(
        metadata=ObjectMeta(name="a", namespace="ns", labels={"l": "v"}), type="t", data={"tls.key": b"k"}
    )
    assert long == ()


def test_long_values_are_named_where_they_would_be_read() -> None:
    text = "x" * (MAX_VALUE + 1)
    config = ConfigMap(
        metadata=METADATA, data={"mesh": text, "other": text, "ca.crt": text[1:]}, binary_data={"ca.crt": text.encode()}
    )
    kept, long = excerpt(config)
    assert isinstance(kept, ConfigMap)
    assert (kept.data.keys(), kept.binary_data) == ({"ca.crt"}, {})
    assert long == ("data[mesh]", "binaryData[ca.crt]")


def test_other_kinds_stay_whole() -> None:
    namespace = Namespace(metadata=METADATA)
    assert excerpt(namespace) == (namespace, ())
