"""Every metric of the controller, in one list, and the endpoint that serves them on loopback."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15)
_SIZES = tuple(float(64 * 4**power) for power in range(10))


class Metrics:
    """The metrics of one controller, in a registry of their own (several controllers can share a process in tests).

    It satisfies the observer protocols of `meshgw.xds`, `meshgw.identity` and `meshgw.cluster`.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels: dict[str, Any] = {"registry": self.registry, "namespace": "meshgw"}
        self.commits = Counter("commits_total", "Commits of the engine", **labels)
        self.commit_seconds = Histogram("commit_seconds", "Time of one commit", buckets=_FAST, **labels)
        self.rows = Counter("rows_recomputed_total", "Rows recomputed, by table", ["table"], **labels)
        self._rows: dict[str, Any] = {}
        self.faults = Counter("faults_total", "Rows whose computation failed, by table", ["table"], **labels)
        self.set_aside = Gauge("set_aside_facts", "What changed and could not be taken in", **labels)
        self.commit_failures = Counter("commit_failures_total", "Commits after which something is to be done", **labels)
        self.untaken = Gauge("watch_faults", "Objects that were watched and could not be taken in", **labels)
        self.findings = Gauge("findings", "Findings in force, by level", ["level"], **labels)
        self.reloads = Counter("reloads_total", "Reloads of the input files", **labels)
        self.problems = Gauge("input_problems", "Problems of the input files", **labels)
        self.push_bytes = Histogram("xds_push_bytes", "Size of one response", ["type"], buckets=_SIZES, **labels)
        self.push_seconds = Histogram("xds_push_to_ack_seconds", "Push to ACK", ["type"], buckets=_FAST, **labels)
        self.nacks = Counter("xds_nacks_total", "Responses a proxy refused", ["type"], **labels)
        self.proxies = Gauge("xds_connected_proxies", "Connected proxies", **labels)
        self.refusals = Counter("xds_refused_streams_total", "Streams refused or ended", ["code"], **labels)
        self.reviews = Counter("token_reviews_total", "Tokens of proxies, by outcome", ["outcome"], **labels)
        self.expiry = Gauge("certificate_expiry_seconds", "End of validity, Unix time", ["identity"], **labels)
        self.rotations = Counter("certificate_rotations_total", "Certificates obtained", ["identity"], **labels)
        self.rotation_failures = Counter(
            "certificate_failures_total", "Failed attempts", ["identity", "code"], **labels
        )
        self.stalls = Histogram("event_loop_stall_seconds", "Delay of a due timer", buckets=_FAST, **labels)
        self.restarts = Counter("envoy_restarts_total", "Restarts of crashed proxies", ["gateway"], **labels)

        self.turns = Counter("write_turns_total", "Turns of objects to be written", ["queue", "outcome"], **labels)
        self.leads = Gauge("leader", "Whether this replica is the one that writes", **labels)
        self.waiting = Gauge("write_queue_objects", "Objects waiting to be written", ["queue"], **labels)
        self.waiting_seconds = Gauge("write_queue_oldest_seconds", "Longest wait to be written", ["queue"], **labels)
        self.writes = Counter("api_writes_total", "Writes to the API server", ["kind", "verb"], **labels)
        self.events = Counter("kubernetes_events_total", "Events about objects", ["reason", "result"], **labels)

    def serve(self, address: str, port: int) -> tuple[WSGIServer, threading.Thread]:
        """Serve `/metrics`; the caller shuts the server down. Raises OSError when the port is in use."""
        return start_http_server(port, addr=address, registry=self.registry)

    def recomputed(self, counts: Mapping[str, int]) -> None:
        """Count the rows that one commit computed, by table."""
        for table, count in counts.items():
            child = self._rows.get(table)
            if child is None:  # looking one up by its labels costs more than counting
                child = self._rows[table] = self.rows.labels(table)
            child.inc(count)

    def pushed(self, group: str, type_url: str, size: int, resources: int) -> None:
        """Count a response on its way to one proxy."""
        del group, resources
        self.push_bytes.labels(_short(type_url)).observe(size)

    def acked(self, group: str, type_url: str, seconds: float) -> None:
        """Record how long a proxy took to accept a response."""
        del group
        self.push_seconds.labels(_short(type_url)).observe(seconds)

    def nacked(self, group: str, type_url: str) -> None:
        """Count a refused response."""
        del group
        self.nacks.labels(_short(type_url)).inc()

    def connected(self, proxies: int) -> None:
        """Set the number of connected proxies."""
        self.proxies.set(proxies)

    def refused(self, code: str) -> None:
        """Count a stream that was refused, or ended for what the proxy did."""
        self.refusals.labels(code).inc()

    def token_reviewed(self, outcome: str) -> None:
        """Count what became of a proxy's token."""
        self.reviews.labels(outcome).inc()

    def certificate_expires(self, identity: object, at: float) -> None:
        """Set when the certificate in use ends, in Unix seconds."""
        self.expiry.labels(str(identity)).set(at)

    def certificate_rotated(self, identity: object) -> None:
        """Count a new certificate."""
        self.rotations.labels(str(identity)).inc()

    def rotation_failed(self, identity: object, code: str) -> None:
        """Count a failed attempt."""
        self.rotation_failures.labels(str(identity), code).inc()

    def identity_removed(self, identity: object) -> None:
        """Forget an identity that is no longer kept."""
        with contextlib.suppress(KeyError):
            self.expiry.remove(str(identity))

    def turn_ended(self, queue: str, outcome: str) -> None:
        """Count the turn of an object that had something to write."""
        self.turns.labels(queue, outcome).inc()

    def queue_waits(self, queue: str, keys: int) -> None:
        """Set how many objects wait to be written."""
        self.waiting.labels(queue).set(keys)

    def watch_queue(self, queue: str, oldest: Callable[[], float]) -> None:
        """Ask, whenever the metrics are read, for how many seconds the oldest object has waited."""
        self.waiting_seconds.labels(queue).set_function(oldest)

    def watch_faults(self, faults: Callable[[], float]) -> None:
        """Ask, whenever the metrics are read, how often a watched object could not be taken in."""
        self.untaken.set_function(faults)

    def wrote(self, kind: str, verb: str) -> None:
        """Count a write to the API server."""
        self.writes.labels(kind, verb).inc()

    def event_told(self, reason: str) -> None:
        """Count an Event that was written, or counted up."""
        self.events.labels(reason, "told").inc()

    def event_dropped(self, reason: str) -> None:
        """Count an Event that was not written."""
        self.events.labels(reason, "dropped").inc()


def _short(type_url: str) -> str:
    """`type.googleapis.com/envoy.config.cluster.v3.Cluster` -> `Cluster`."""
    return type_url.rpartition(".")[2]
