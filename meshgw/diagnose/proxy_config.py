"""What an Envoy runs, as tables: rows from its `/config_dump?include_eds`, each with the object it comes from.

A dump is material from outside: what is missing in it or of another shape gives empty cells, never an error.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Final

import msgspec
from cryptography import x509

from meshgw.api.registry import REGISTRY

Document = dict[str, Any]


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """One table: every row has a cell for each column."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def documents(self) -> list[dict[str, str]]:
        """Return the rows as documents with the columns' names in lower case."""
        names = [column.lower().replace(" ", "_") for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]


_KINDS: Final = {kind.name.lower(): kind.name for kind in REGISTRY.kinds}
_PORTS: Final = frozenset({"http", "https", "tls", "tcp", "udp"})
NOTHING: Final = "-"


def origin(name: str, gateway: str = "") -> str:
    """Return the Kubernetes object that an Envoy name of ours is about, such as `HTTPRoute shop/cart, rule 0`.

    What is not about one object comes from the Gateway, or from nothing we know.
    """
    if "+" in name:
        return ", ".join(origin(part, gateway) for part in name.split("+"))
    words = name.split("/")
    own = f"Gateway {gateway}" if gateway else NOTHING
    match words:
        case ["certificate", namespace, secret]:
            return f"Secret {namespace}/{secret}"
        case ["bundle", kind, namespace, bundle]:
            return f"{_KINDS.get(kind, kind)} {namespace}/{bundle}"
        case ["service", namespace, service, *_]:
            return f"Service {namespace}/{service}"
        case [kind, namespace, route, rule] if kind.endswith("route") and kind in _KINDS:
            return f"{_KINDS[kind]} {namespace}/{route}, rule {rule}"
        case [kind, namespace, route, *_] if kind.endswith("route") and kind in _KINDS:
            return f"{_KINDS[kind]} {namespace}/{route}"
        case [protocol, _port, *rest] if protocol in _PORTS and rest:
            return _listener_origin(rest, own)
        case _:
            return own


def _first_origin(*names: str, otherwise: str) -> str:
    """Return the origin of the first name that tells one."""
    return next((found for found in map(origin, names) if found != NOTHING), otherwise)


def _listener_origin(words: list[str], own: str) -> str:
    """Return whose listener it is: [kind,] namespace, owner, listener."""
    kind = "Gateway"
    if words[0] in ("gateway", "listenerset"):
        kind = _KINDS[words[0]]
        words = words[1:]
    return own if len(words) < 3 else f"{kind} {words[0]}/{words[1]}, listener {words[2]}"


def gateway_of(dump: Document, info: Document | None = None) -> str:
    """Return the Gateway as `namespace/name`, from the node id; "" for an Envoy that is not ours.

    An Envoy that got its id by a flag tells it in `/server_info` only.
    """
    node = _get(info, "node") or _get(_section(dump, "Bootstrap"), "bootstrap", "node")
    words = str(node.get("id", "")).split("/")
    return "/".join(words[:2]) if len(words) >= 2 else ""


def list_listeners(dump: Document, own: str = "") -> Sheet:
    """Return a row for each filter chain: what it takes, and where that goes. `own` is the proxy's Gateway."""
    own, rows = own or gateway_of(dump), []
    section = _section(dump, "Listeners")
    found = [
        *_bodies(section, "static_listeners", "listener"),
        *(_get(item, "active_state", "listener") for item in _items(section, "dynamic_listeners")),
    ]
    for listener in found:
        name = str(listener.get("name", ""))
        default = listener.get("default_filter_chain")
        for chain in (*_items(listener, "filter_chains"), *([default] if isinstance(default, dict) else ())):
            destination = _chain_destination(chain)
            source = _first_origin(str(chain.get("name", "")), destination, otherwise=origin(name, own))
            rows.append((name, _address(listener.get("address")), _chain_match(chain), destination, source))
        if not listener.get("filter_chains") and not default:
            rows.append((name, _address(listener.get("address")), "any", _udp_destination(listener), origin(name, own)))
    return _sheet(("NAME", "ADDRESS", "MATCH", "DESTINATION", "ORIGIN"), rows)


def list_routes(dump: Document, own: str = "") -> Sheet:
    """Return a row for each route, in Envoy's order within a host: the first that matches is taken."""
    own, rows = own or gateway_of(dump), []
    section = _section(dump, "Routes")
    configs = (
        *_bodies(section, "static_route_configs", "route_config"),
        *_bodies(section, "dynamic_route_configs", "route_config"),
    )
    for config in sorted(configs, key=lambda config: str(config.get("name", ""))):
        name = str(config.get("name", ""))
        for host in sorted(_items(config, "virtual_hosts"), key=lambda host: str(host.get("name", ""))):
            domains = ",".join(str(domain) for domain in _items(host, "domains", dict | str))
            for route in _items(host, "routes"):
                destination = _route_destination(route)
                source = _first_origin(
                    str(route.get("name", "")), str(host.get("name", "")), otherwise=origin(name, own)
                )
                rows.append((name, domains, _route_match(route.get("match")), destination, source))
    return Sheet(columns=("NAME", "DOMAINS", "MATCH", "DESTINATION", "ORIGIN"), rows=tuple(rows))


def list_clusters(dump: Document, own: str = "") -> Sheet:
    """Return a row for each cluster: how it finds endpoints, how it speaks to them, and its version."""
    own, rows = own or gateway_of(dump), []
    section = _section(dump, "Clusters")
    for item in (*_items(section, "static_clusters"), *_items(section, "dynamic_active_clusters")):
        cluster = _get(item, "cluster")
        name = str(cluster.get("name", ""))
        rows.append((name, str(cluster.get("type", "")), _transport(cluster), origin(name, own)))
    return _sheet(("NAME", "TYPE", "TRANSPORT", "ORIGIN"), rows)


def list_endpoints(dump: Document, own: str = "") -> Sheet:
    """Return a row for each endpoint: its address, health, and the identity it must prove in the mesh."""
    own, rows = own or gateway_of(dump), []
    section = _section(dump, "Endpoints")
    for config in (
        *_bodies(section, "static_endpoint_configs", "endpoint_config"),
        *_bodies(section, "dynamic_endpoint_configs", "endpoint_config"),
    ):
        cluster = str(config.get("cluster_name", ""))
        for locality in _items(config, "endpoints"):
            for endpoint in _items(locality, "lb_endpoints"):
                metadata = _get(endpoint, "metadata", "filter_metadata")
                identity = str(_get(metadata, "meshgw").get("san", NOTHING))
                address = _address(_get(endpoint, "endpoint").get("address"))
                status = str(endpoint.get("health_status", "UNKNOWN"))
                rows.append((address, status, identity, cluster, origin(cluster, own)))
    return _sheet(("ADDRESS", "STATUS", "IDENTITY", "CLUSTER", "ORIGIN"), rows)


def list_secrets(dump: Document, now: datetime, own: str = "") -> Sheet:
    """Return a row for each certificate, never a key: whom it names and until when. `now` decides what is valid."""
    own = own or gateway_of(dump)
    rows: list[tuple[str, ...]] = []
    section = _section(dump, "Secrets")
    for group, state in (
        ("static_secrets", "active"),
        ("dynamic_active_secrets", "active"),
        ("dynamic_warming_secrets", "warming"),
    ):
        for item in _items(section, group):
            name = str(item.get("name", ""))
            found = _certificate_rows(_get(item, "secret"), state, now)
            rows += ((name, *cells, origin(name, own)) for cells in found)
    return _sheet(("NAME", "TYPE", "STATE", "SUBJECT", "SERIAL", "NOT BEFORE", "NOT AFTER", "ORIGIN"), rows)


def _certificate_rows(secret: Document, state: str, now: datetime) -> Iterator[tuple[str, ...]]:
    for field, inner, kind in (
        ("tls_certificate", "certificate_chain", "certificate"),
        ("validation_context", "trusted_ca", "roots"),
    ):
        if field not in secret:
            continue
        certificates = _certificates(_get(secret, field, inner))
        # Of a chain the first proves an identity, the others only lead to a root.
        shown = certificates[:1] if kind == "certificate" else certificates
        for certificate in shown:
            yield (kind, _validity(certificate, state, now), _subject(certificate), f"{certificate.serial_number:x}",
                   _time(certificate.not_valid_before_utc), _time(certificate.not_valid_after_utc))  # fmt: skip
        if not shown:
            yield kind, "waiting" if state == "warming" else "empty", NOTHING, NOTHING, NOTHING, NOTHING


def _validity(certificate: x509.Certificate, state: str, now: datetime) -> str:
    if now >= certificate.not_valid_after_utc:
        return "expired"
    return "not yet valid" if now < certificate.not_valid_before_utc else state


def _certificates(source: Document) -> list[x509.Certificate]:
    try:
        data = base64.b64decode(str(source["inline_bytes"])) if "inline_bytes" in source else None
        pem = data if data is not None else str(source.get("inline_string", "")).encode()
        return x509.load_pem_x509_certificates(pem) if pem.strip() else []
    except (ValueError, binascii.Error):
        return []


def _subject(certificate: x509.Certificate) -> str:
    """Return the alternative names, which is what peers look at, or the subject of one that has none."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return certificate.subject.rfc4514_string() or NOTHING
    return ",".join(str(name.value) for name in extension)


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _chain_match(chain: Document) -> str:
    match = _get(chain, "filter_chain_match")
    said = []
    if names := _items(match, "server_names", str):
        said.append(f"SNI {','.join(names)}")
    elif match.get("transport_protocol"):
        said.append(str(match["transport_protocol"]))
    if "destination_port" in match:
        said.append(f"port {match['destination_port']}")
    name = str(chain.get("name", ""))
    if name.startswith("inbound-vip|"):
        _, port, protocol, host = (*name.split("|", 3), "", "", "")[:4]
        said.append(f"{host}:{port} {protocol}".strip())
    return " ".join(said) or "any"


def _chain_destination(chain: Document) -> str:
    """Return the name of the routes or cluster that a chain's last filter leads to."""
    for network_filter in reversed(_items(chain, "filters")):
        config = _get(network_filter, "typed_config")
        if "rds" in config:
            return str(_get(config, "rds").get("route_config_name", ""))
        if "route_config" in config:
            return str(_get(config, "route_config").get("name", ""))
        if "cluster" in config:
            return str(config["cluster"])
        if "weighted_clusters" in config:
            return _weighted(_get(config, "weighted_clusters"))
    return NOTHING


def _udp_destination(listener: Document) -> str:
    for listener_filter in _items(listener, "listener_filters"):
        config = _get(listener_filter, "typed_config")
        cluster = config.get("cluster") or _get(
            config, "matcher", "on_no_match", "action", "typed_config"
        ).get("cluster")  # fmt: skip
        if cluster:
            return str(cluster)
    return NOTHING


_PATHS: Final = (
    ("path", "{}"),
    ("prefix", "{}*"),
    ("path_separated_prefix", "{}/*"),
)


def _route_match(match: Any) -> str:
    if not isinstance(match, dict):
        return NOTHING
    said = [form.format(match[field]) for field, form in _PATHS if field in match]
    if "safe_regex" in match:
        said.append(f"~{_get(match, 'safe_regex').get('regex', '')}")
    if "connect_matcher" in match:
        said.append("CONNECT")
    said += (f"{header.get('name', '')}{_string_match(header)}" for header in _items(match, "headers"))
    said += (f"?{query.get('name', '')}{_string_match(query)}" for query in _items(match, "query_parameters"))
    return " ".join(said) or "any"


def _string_match(matcher: Document) -> str:
    found = _get(matcher, "string_match")
    sign = "!" if matcher.get("invert_match") else ""
    for kind, form in (("exact", "={}"), ("prefix", "={}*"), ("suffix", "=*{}"), ("contains", "=*{}*")):
        if kind in found:
            return sign + form.format(found[kind])
    if "safe_regex" in found:
        return f"{sign}~{_get(found, 'safe_regex').get('regex', '')}"
    return f"{sign} present"


def _route_destination(route: Document) -> str:
    if "direct_response" in route:
        return f"status {_get(route, 'direct_response').get('status', '')}"
    if "redirect" in route:
        found = _get(route, "redirect")
        to = found.get("path_redirect") or found.get("prefix_rewrite") or ""
        return f"redirect {found.get('scheme_redirect') or ''}//{found.get('host_redirect') or ''}{to}".rstrip("/")
    action = _get(route, "route")
    if "weighted_clusters" in action:
        return _weighted(_get(action, "weighted_clusters"))
    return str(action.get("cluster") or action.get("cluster_header") or NOTHING)


def _weighted(clusters: Document) -> str:
    return ", ".join(f"{item.get('name', '')} ({item.get('weight', 0)})" for item in _items(clusters, "clusters"))


def _transport(cluster: Document) -> str:
    """Return the transport sockets that endpoints are reached with; an internal one chosen by endpoint is HBONE."""
    names = {
        str(_get(found, "transport_socket").get("name", "")).rpartition(".")[2].replace("internal_upstream", "hbone")
        for found in _items(cluster, "transport_socket_matches")
    }
    names.add(str(_get(cluster, "transport_socket").get("name", "")).rpartition(".")[2].replace("_upstream", ""))
    return ",".join(sorted(names - {"", "raw_buffer"})) or "plain"


def _address(address: Any) -> str:
    if not isinstance(address, dict):
        return NOTHING
    if "socket_address" in address:
        found = _get(address, "socket_address")
        host = str(found.get("address", ""))
        return f"[{host}]:{found.get('port_value', '')}" if ":" in host else f"{host}:{found.get('port_value', '')}"
    if "envoy_internal_address" in address:
        found = _get(address, "envoy_internal_address")
        target = found.get("endpoint_id")
        return f"{target} via {found.get('server_listener_name')}" if target else str(found.get("server_listener_name"))
    if "pipe" in address:
        return f"unix:{_get(address, 'pipe').get('path', '')}"
    return NOTHING


def _section(dump: Document, name: str) -> Document:
    kind = f"envoy.admin.v3.{name}ConfigDump"
    return next((item for item in _items(dump, "configs") if str(item.get("@type", "")).endswith(kind)), {})


def _items(document: Document, field: str, kind: Any = dict) -> list[Any]:
    """Return the elements of a list field that are of the kind."""
    value = document.get(field)
    return [item for item in value if isinstance(item, kind)] if isinstance(value, list) else []


def _bodies(section: Document, field: str, body: str) -> Iterable[Document]:
    return (_get(item, body) for item in _items(section, field))


def _get(document: Any, *fields: str) -> Document:
    """Return the mapping at a path, empty where there is none."""
    for field in fields:
        document = document.get(field) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def _sheet(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Sheet:
    return Sheet(columns=columns, rows=tuple(sorted(rows)))
