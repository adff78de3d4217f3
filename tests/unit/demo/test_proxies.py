"""The node proxies' resources: who may pass, to where, as whom."""

from __future__ import annotations

from google.protobuf.json_format import MessageToDict

from meshgw.demo.plan import Plan
from meshgw.demo.proxies import accounts, client_resources, secrets, workload_resources
from meshgw.emit.resource import CLUSTER, LISTENER, SECRET, Resource
from meshgw.ir.backend import WorkloadCertificate
from meshgw.protos import Cluster, Listener, Secret

PLAN = Plan(number=20)
MESSAGES = {LISTENER: Listener, CLUSTER: Cluster, SECRET: Secret}


def decoded(resource: Resource) -> dict:
    return MessageToDict(MESSAGES[resource.type_url].FromString(resource.body), preserving_proto_field_name=True)


def by_name(resources: list[Resource]) -> dict:
    return {(resource.type_url, resource.name): decoded(resource) for resource in resources}


def tls(socket: dict) -> dict:
    return socket["typed_config"]["common_tls_context"]


def test_each_client_has_a_port_on_loopback_and_a_tunnel_of_its_own() -> None:
    found = by_name(list(client_resources(PLAN)))
    assert len(found) == 2 * len(PLAN.clients)
    for client in PLAN.clients:
        listener, cluster = found[LISTENER, f"client/{client.name}"], found[CLUSTER, f"client/{client.name}"]
        assert listener["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": client.port}
        [proxy] = listener["filter_chains"][0]["filters"]
        assert proxy["typed_config"]["tunneling_config"]["hostname"] == client.authority
        [member] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        assert member["endpoint"]["address"]["socket_address"] == {"address": client.via, "port_value": 15008}


def test_a_client_acts_as_its_account_and_talks_to_exactly_one_other() -> None:
    found = by_name(list(client_resources(PLAN)))
    for client in PLAN.clients:
        context = tls(found[CLUSTER, f"client/{client.name}"]["transport_socket"])
        [own] = context["tls_certificate_sds_secret_configs"]
        assert own["name"] == f"identity/{client.account}"
        [peer] = context["combined_validation_context"]["default_validation_context"]["match_typed_subject_alt_names"]
        assert peer["matcher"] == {"exact": f"spiffe://cluster.local/ns/shop/sa/{client.peer}"}


def test_a_workload_is_reached_by_the_waypoint_only_and_at_its_own_address() -> None:
    found = by_name(list(workload_resources(PLAN)))
    for workload in PLAN.workloads:
        listener = found[LISTENER, f"workload/{workload.name}"]
        assert listener["address"]["socket_address"] == {"address": workload.address, "port_value": 15008}
        [chain] = listener["filter_chains"]
        assert chain["transport_socket"]["typed_config"]["require_client_certificate"] is True
        [own] = tls(chain["transport_socket"])["tls_certificate_sds_secret_configs"]
        assert own["name"] == f"identity/{workload.account}"
        manager = chain["filters"][0]["typed_config"]
        rules = manager["http_filters"][0]["typed_config"]["rules"]
        [principal] = rules["policies"]["waypoint"]["principals"]
        assert principal["authenticated"]["principal_name"] == {"exact": "spiffe://cluster.local/ns/shop/sa/waypoint"}
        tunnel, other = manager["route_config"]["virtual_hosts"][0]["routes"]
        assert tunnel["match"]["headers"][0]["string_match"] == {"exact": f"{workload.address}:8080"}
        assert tunnel["route"]["cluster"] == f"app/{workload.name}"
        assert other["direct_response"]["status"] == 400


def test_certificates_come_as_secrets_that_never_show_their_key() -> None:
    certificate = WorkloadCertificate(chain=b"CHAIN", key=b"KEY", roots=b"ROOTS")
    resources = list(secrets("frontend", certificate))
    assert [resource.name for resource in resources] == ["identity/frontend", "ROOTCA"]
    own, roots = (Secret.FromString(resource.body) for resource in resources)
    assert own.tls_certificate.private_key.inline_bytes == b"KEY"
    assert roots.validation_context.trusted_ca.inline_bytes == b"ROOTS"
    assert "KEY" not in repr(resources)


def test_no_key_is_part_of_any_listener_or_cluster() -> None:
    for resource in (*client_resources(PLAN), *workload_resources(PLAN)):
        assert b"private_key" not in resource.body
        assert "inline" not in str(decoded(resource).get("transport_socket", ""))


def test_accounts_are_named_once() -> None:
    assert accounts(PLAN.clients) == ("frontend", "stranger")
    assert accounts(PLAN.workloads) == ("shop", "impostor")
