"""The audit log of an API server: who asked for what, and what was answered (Kubernetes: audit.k8s.io/v1 Event)."""

from pathlib import Path
from typing import Any

import msgspec


def read_audit(log: Path) -> list[dict[str, Any]]:
    """Return the events written whole so far; a request that was refused before it had a user has the name ""."""
    if not log.exists():
        return []
    whole, _, _ = log.read_bytes().rpartition(b"\n")  # the last line may be in writing
    events: list[dict[str, Any]] = [msgspec.json.decode(line) for line in whole.splitlines()]
    for event in events:
        event.setdefault("user", {}).setdefault("username", "")
    return events
