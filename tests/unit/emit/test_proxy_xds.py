"""How a proxy and its discovery service know each other; a real Envoy shows in `tests/envoy` that it works."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshgw.emit.proxy_xds import XdsCredentials, credentials_filters, credentials_socket, is_numeric, secret_files


def credentials(server_name: str = "meshgw.meshgw-system.svc") -> XdsCredentials:
    return XdsCredentials(server_name=server_name, folder="/etc/meshgw", token_folder="/var/run/token")


def context(server_name: str = "meshgw.meshgw-system.svc") -> dict[str, Any]:
    config: dict[str, Any] = credentials_socket(credentials(server_name))["typed_config"]
    return config


def test_the_files_name_the_roots_and_the_token_and_hold_neither() -> None:
    files = {name: json.loads(text)["resources"][0] for name, text in secret_files(credentials()).items()}
    assert files["xds-roots.json"]["validation_context"]["trusted_ca"] == {"filename": "/etc/meshgw/ca.crt"}
    assert files["xds-token.json"]["generic_secret"] == {"secret": {"filename": "/var/run/token/token"}}


def test_each_file_is_read_again_when_its_own_folder_changes() -> None:
    (injector, codec) = credentials_filters(credentials())
    source = injector["typed_config"]["credential"]["typed_config"]["credential"]["sds_config"]["path_config_source"]
    assert source == {"path": "/etc/meshgw/xds-token.json", "watched_directory": {"path": "/var/run/token"}}
    assert codec["name"] == "envoy.filters.http.upstream_codec"
    roots = context()["common_tls_context"]["combined_validation_context"]["validation_context_sds_secret_config"]
    assert roots["sds_config"]["path_config_source"]["watched_directory"] == {"path": "/etc/meshgw"}


@pytest.mark.parametrize(
    ("host", "kind", "sni"), [("meshgw.meshgw-system.svc", "DNS", True), ("10.0.0.1", "IP_ADDRESS", False)]
)
def test_the_server_must_have_the_name_it_is_called_by(host: str, kind: str, sni: bool) -> None:  # noqa: FBT001 - a row
    found = context(host)
    (name,) = found["common_tls_context"]["combined_validation_context"]["default_validation_context"][
        "match_typed_subject_alt_names"
    ]
    assert name == {"san_type": kind, "matcher": {"exact": host}}
    assert found.get("sni") == (host if sni else None)


def test_tls_is_the_newest() -> None:
    parameters = context()["common_tls_context"]["tls_params"]
    assert set(parameters.values()) == {"TLSv1_3"}
    assert len(parameters) == 2


@pytest.mark.parametrize(("host", "numeric"), [("10.0.0.1", True), ("::1", True), ("a.b", False), ("", False)])
def test_addresses_are_told_from_names(host: str, numeric: bool) -> None:  # noqa: FBT001 - a row of the table
    assert is_numeric(host) is numeric
