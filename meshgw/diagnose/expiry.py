"""Which certificates in use have expired. The pipeline has no clock: its output follows from its input alone."""

from __future__ import annotations

from datetime import UTC, datetime

from meshgw.api.meta import ObjectRef
from meshgw.emit.tables import SECRET_USES
from meshgw.engine import Graph
from meshgw.ir.finding import Finding
from meshgw.resolve.tables import CERTIFICATES


def find_expired(graph: Graph, now: float) -> list[Finding]:
    """Return a finding for every Secret in use whose certificate is past its validity at `now` (Unix seconds)."""
    expired = {
        row.name: (key, row.not_after)
        for key, row in graph.rows(CERTIFICATES).items()
        if not row.error and row.not_after <= now
    }
    used = {key[1] for key in graph.rows(SECRET_USES)} if expired else set()
    return [
        Finding(
            code="MG3003",
            object=ObjectRef("Secret", *key),
            field="data[tls.crt]",
            message=f"expired at {datetime.fromtimestamp(end, UTC):%Y-%m-%dT%H:%M:%SZ}",
        )
        for name, (key, end) in sorted(expired.items())
        if name in used
    ]
