"""Secrets as SDS delivers them. A Gateway's proxies are given those that its own configuration names, and no others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from meshgw.api.meta import Key
from meshgw.emit.resource import SECRET, Resource
from meshgw.emit.tls import JOIN, SYSTEM_ROOTS, bundle_secret, upstream_roots
from meshgw.engine import View
from meshgw.ir.backend import Cluster, SecretUse
from meshgw.ir.gateway import Gateway, Listener, Role
from meshgw.ir.keys import ResourceKey
from meshgw.names import SDS_MESH_ROOTS, SDS_WORKLOAD_CERTIFICATE
from meshgw.protos import DataSource, Secret, TlsCertificate, encode
from meshgw.resolve.settings import read_settings
from meshgw.resolve.tables import BUNDLES, CERTIFICATES, OUR_GATEWAYS, WORKLOAD_CERTIFICATES

SYSTEM_ROOTS_FILE: Final = "/etc/ssl/certs/ca-certificates.crt"
"""CA certificates of Debian, Alpine and Envoy's own images. Where the file is absent only what needs it fails."""

_MESH: Final = (SDS_WORKLOAD_CERTIFICATE, SDS_MESH_ROOTS)
_BUNDLE_KINDS: Final = {"configmap": "ConfigMap", "secret": "Secret"}

UseKey = tuple[Key, str, tuple[Any, ...]]


def use_secrets(
    view: View, _table: Any, key: Any, row: Listener | Gateway | Cluster
) -> Iterable[tuple[UseKey, SecretUse]]:
    """Name the secrets that a listener, a Gateway or a cluster needs."""
    names: Iterable[str]
    if isinstance(row, Listener):
        gateway, names, user = row.key.gateway, _of_listener(row), ("listener", *_flat(key))
    elif isinstance(row, Gateway):
        gateway, names, user = row.key, _MESH if _is_waypoint(view, row) else (), ("gateway",)
    else:
        gateway, names, user = row.key.gateway, _of_cluster(row), ("cluster", row.key.target.cluster)
    for name in sorted(set(names)):
        yield (gateway, name, user), SecretUse(gateway=gateway, name=name)


def _is_waypoint(view: View, row: Gateway) -> bool:
    """Whether the Gateway serves as a waypoint: it does not without an identity."""
    settings = read_settings(view)
    return row.accepted and row.role is Role.WAYPOINT and settings.mesh


def group_secret_uses(key: UseKey, _row: SecretUse) -> Iterable[tuple[Key, str]]:
    """All uses of one secret by one Gateway."""
    return ((key[0], key[1]),)


def emit_secret(
    view: View, use: tuple[Key, str], _members: Mapping[UseKey, SecretUse]
) -> Iterable[tuple[ResourceKey, Resource]]:
    """Build a secret; until there is one, what waits for it stays closed."""
    gateway, name = use
    secret = _workload_secret(view, gateway, name) if name in _MESH else _named_secret(view, name)
    if secret is not None:
        yield ResourceKey(gateway, SECRET, name), Resource.of(SECRET, name, encode(secret))


def certificate_secret(name: str, chain: bytes, key: bytes) -> Secret:
    """A certificate with its private key."""
    return Secret(
        name=name,
        tls_certificate=TlsCertificate(
            certificate_chain=DataSource(inline_bytes=chain), private_key=DataSource(inline_bytes=key)
        ),
    )


def roots_secret(name: str, roots: DataSource) -> Secret:
    """CA certificates."""
    secret = Secret(name=name)
    secret.validation_context.trusted_ca.CopyFrom(roots)
    return secret


def _of_listener(row: Listener) -> Iterator[str]:
    tls = row.tls
    if row.serving and tls is not None:
        yield from tls.certificates
        if tls.client is not None:
            yield bundle_secret(tls.client.bundles)


def _of_cluster(row: Cluster) -> Iterator[str]:
    if row.refused:
        return
    if row.hbone:
        yield from _MESH
    if row.tls is not None and (roots := upstream_roots(row.tls)):
        yield roots
        if row.tls.client_certificate:
            yield row.tls.client_certificate


def _workload_secret(view: View, gateway: Key, name: str) -> Secret | None:
    row = view.get(OUR_GATEWAYS, gateway)
    if row is None:
        return None
    workload = view.get(WORKLOAD_CERTIFICATES, Key(gateway.namespace, row.service_account))
    if workload is None:
        return None
    if name == SDS_WORKLOAD_CERTIFICATE:
        return certificate_secret(name, workload.chain, workload.key)
    return roots_secret(name, DataSource(inline_bytes=workload.roots))


def _named_secret(view: View, name: str) -> Secret | None:
    if name == SYSTEM_ROOTS:
        return roots_secret(name, DataSource(filename=SYSTEM_ROOTS_FILE))
    kind, *rest = name.split("/")
    if kind == "certificate":
        certificate = view.get(CERTIFICATES, Key(*rest))
        if certificate is None or certificate.error:
            return None
        return certificate_secret(name, certificate.chain, certificate.key)
    roots = [_roots(view, part) for part in name.split(JOIN)]
    if not all(roots):
        return None
    return roots_secret(name, DataSource(inline_bytes=b"".join(roots)))


def _roots(view: View, name: str) -> bytes:
    """The certificates of a bundle, empty if it cannot be used: all bundles that were asked for, or none."""
    _bundle, kind, namespace, bundle = name.split("/")
    row = view.get(BUNDLES, (_BUNDLE_KINDS[kind], Key(namespace, bundle)))
    if row is None or row.error:
        return b""
    return row.roots if row.roots.endswith(b"\n") else row.roots + b"\n"


def _flat(key: Any) -> tuple[str, ...]:
    return tuple(part for item in key for part in (item if isinstance(item, tuple) else (item,)))
