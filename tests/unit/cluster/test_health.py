"""What the kubelet and Prometheus are told."""

from __future__ import annotations

import httpcore

from meshgw.cluster.health import serve_health, serve_metrics
from meshgw.observe.metrics import Metrics


async def ask(port: int, path: str) -> tuple[int, str]:
    async with httpcore.AsyncConnectionPool() as pool:
        answer = await pool.request("GET", f"http://127.0.0.1:{port}{path}")
        return answer.status, answer.content.decode()


async def test_a_replica_is_alive_before_it_is_ready_and_says_what_is_missing() -> None:
    missing = ["starting", "not seen yet: HTTPRoute"]
    async with serve_health("127.0.0.1:0", lambda: missing) as port:
        assert await ask(port, "/healthz") == (200, "ok\n")
        assert await ask(port, "/readyz") == (503, "starting\nnot seen yet: HTTPRoute\n")
        missing.clear()
        assert await ask(port, "/readyz") == (200, "ok\n")
        assert (await ask(port, "/metrics"))[0] == 404


async def test_metrics_are_served_apart() -> None:
    metrics = Metrics()
    metrics.commits.inc(3)
    async with serve_metrics("127.0.0.1:0", metrics) as port:
        status, text = await ask(port, "/metrics")
    assert status == 200
    assert "meshgw_commits_total 3.0" in text
