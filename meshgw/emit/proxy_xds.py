"""How a proxy in a cluster and its discovery service prove to each other who they are.

The server shows a certificate for its name, the proxy sends the token of its ServiceAccount. Both the roots and the
token are files that are replaced while the proxy runs. Envoy reads files again only if a discovery service names them,
so two small documents play that service.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

ROOTS_FILE: Final = "ca.crt"
ROOTS: Final = "xds-roots"
TOKEN: Final = "xds-token"  # noqa: S105 - the name of a resource

_TYPE: Final = "type.googleapis.com/envoy.extensions"
_SECRET: Final = f"{_TYPE}.transport_sockets.tls.v3.Secret"
_VERSIONS: Final = ("tls_minimum_protocol_version", "tls_maximum_protocol_version")


class XdsCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """The name in the server's certificate, and the folders of the files.

    `folder` holds `ca.crt` and the files of `secret_files`; `token_folder` holds `token`. Each is replaced as the
    kubelet does it: by renaming a symbolic link in it.
    """

    server_name: str
    folder: str
    token_folder: str


def secret_files(credentials: XdsCredentials) -> Mapping[str, str]:
    """Return the documents that name the files, by file name."""
    roots = {
        "@type": _SECRET,
        "name": ROOTS,
        "validation_context": {
            "trusted_ca": {"filename": f"{credentials.folder}/{ROOTS_FILE}"},
            "watched_directory": {"path": credentials.folder},
        },
    }
    token = {
        "@type": _SECRET,
        "name": TOKEN,
        "generic_secret": {"secret": {"filename": f"{credentials.token_folder}/token"}},
    }
    return {f"{secret['name']}.json": json.dumps({"resources": [secret]}) for secret in (roots, token)}


def credentials_filters(credentials: XdsCredentials) -> list[dict[str, Any]]:
    """Return the upstream filters that send the token with every stream."""
    generic = {
        "@type": f"{_TYPE}.http.injected_credentials.generic.v3.Generic",
        "credential": _from_file(TOKEN, credentials.folder, watched=credentials.token_folder),
        "header": "authorization",
        "header_value_prefix": "Bearer ",
    }
    injector = {
        "@type": f"{_TYPE}.filters.http.credential_injector.v3.CredentialInjector",
        "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": generic},
        "overwrite": True,
    }
    codec = {"@type": f"{_TYPE}.filters.http.upstream_codec.v3.UpstreamCodec"}
    return [
        {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
        {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
    ]


def credentials_socket(credentials: XdsCredentials) -> dict[str, Any]:
    """Return the transport socket that verifies the server."""
    numeric = is_numeric(credentials.server_name)
    name = {"san_type": "IP_ADDRESS" if numeric else "DNS", "matcher": {"exact": credentials.server_name}}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPE}.transport_sockets.tls.v3.UpstreamTlsContext",
            **({} if numeric else {"sni": credentials.server_name}),
            "common_tls_context": {
                "tls_params": dict.fromkeys(_VERSIONS, "TLSv1_3"),
                "alpn_protocols": ["h2"],
                "combined_validation_context": {
                    "default_validation_context": {"match_typed_subject_alt_names": [name]},
                    "validation_context_sds_secret_config": _from_file(
                        ROOTS, credentials.folder, watched=credentials.folder
                    ),
                },
            },
        },
    }


def is_numeric(host: str) -> bool:
    """Whether a host is an IP address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _from_file(name: str, folder: str, *, watched: str) -> dict[str, Any]:
    """Return a secret that a file holds; it is read again when something in `watched` is replaced."""
    source = {"path": f"{folder}/{name}.json", "watched_directory": {"path": watched}}
    return {"name": name, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}
