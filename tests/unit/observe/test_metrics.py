"""Metrics: what happens is counted, and served on loopback."""

from __future__ import annotations

import urllib.request

from prometheus_client import generate_latest

from meshgw.observe.metrics import Metrics

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"meshgw_{name}", labels)


def test_two_controllers_in_a_process_count_apart() -> None:
    one, two = Metrics(), Metrics()
    one.commits.inc()
    assert (value(one, "commits_total"), value(two, "commits_total")) == (1, 0)


def test_rows_of_several_commits_add_up_by_table() -> None:
    metrics = Metrics()
    metrics.recomputed({"routes": 2, "hosts": 1})
    metrics.recomputed({"routes": 3})
    assert value(metrics, "rows_recomputed_total", table="routes") == 5
    assert value(metrics, "rows_recomputed_total", table="hosts") == 1


def test_pushes_are_told_apart_by_the_short_name_of_their_type() -> None:
    metrics = Metrics()
    metrics.pushed("default/gw", CLUSTER, 1000, 3)
    metrics.acked("default/gw", CLUSTER, 0.003)
    metrics.nacked("default/gw", CLUSTER)
    metrics.connected(2)
    assert value(metrics, "xds_push_bytes_sum", type="Cluster") == 1000
    assert value(metrics, "xds_push_to_ack_seconds_bucket", type="Cluster", le="0.005") == 1
    assert value(metrics, "xds_push_to_ack_seconds_bucket", type="Cluster", le="0.002") == 0
    assert value(metrics, "xds_nacks_total", type="Cluster") == 1
    assert value(metrics, "xds_connected_proxies") == 2


def test_refused_streams_and_tokens_are_counted_by_their_kind() -> None:
    metrics = Metrics()
    for code in ("UNAUTHENTICATED", "UNAVAILABLE", "UNAUTHENTICATED"):
        metrics.refused(code)
    metrics.token_reviewed("refused")
    assert value(metrics, "xds_refused_streams_total", code="UNAUTHENTICATED") == 2
    assert value(metrics, "token_reviews_total", outcome="refused") == 1


def test_an_identity_that_is_no_longer_kept_leaves_no_expiry_behind() -> None:
    metrics = Metrics()
    metrics.certificate_expires("default/gw", 1700000000.0)
    metrics.certificate_rotated("default/gw")
    metrics.rotation_failed("default/gw", "UNAVAILABLE")
    assert value(metrics, "certificate_expiry_seconds", identity="default/gw") == 1700000000.0
    assert value(metrics, "certificate_failures_total", identity="default/gw", code="UNAVAILABLE") == 1
    metrics.identity_removed("default/gw")
    metrics.identity_removed("default/never")
    assert value(metrics, "certificate_expiry_seconds", identity="default/gw") is None


def test_they_are_served_on_loopback() -> None:
    metrics = Metrics()
    server, thread = metrics.serve("127.0.0.1", 0)
    try:
        host, port = server.server_address[:2]
        with urllib.request.urlopen(f"http://{host!s}:{port}/metrics", timeout=5) as answer:
            assert answer.read() == generate_latest(metrics.registry)
        assert host == "127.0.0.1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def test_writes_and_what_waits_for_them_are_counted() -> None:
    metrics = Metrics()
    metrics.turn_ended("status", "written")
    metrics.queue_waits("status", 3)
    metrics.wrote("HTTPRoute", "patch status")
    metrics.event_told("Refused")
    metrics.event_dropped("Refused")
    age = [1.5]
    metrics.watch_queue("status", lambda: age[0])
    assert value(metrics, "write_turns_total", queue="status", outcome="written") == 1
    assert value(metrics, "write_queue_objects", queue="status") == 3
    assert value(metrics, "api_writes_total", kind="HTTPRoute", verb="patch status") == 1
    assert value(metrics, "kubernetes_events_total", reason="Refused", result="told") == 1
    assert value(metrics, "kubernetes_events_total", reason="Refused", result="dropped") == 1
    assert value(metrics, "write_queue_oldest_seconds", queue="status") == 1.5
    age[0] = 2.5
    assert value(metrics, "write_queue_oldest_seconds", queue="status") == 2.5
