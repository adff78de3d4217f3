"""Every golden case, read by a second codec: no Envoy, but half a minute, so it stands with the slow oracles."""

from __future__ import annotations

from typing import Any

import msgspec

from meshgw.emit.dump import MESSAGES
from meshgw.emit.resource import Resource
from meshgw.emit.tables import RESOURCES
from meshgw.protos import MessageToDict
from tests.decoder import decode
from tests.golden.case import CASES, ROOT, commit_all, read_case


def test_another_codec_reads_the_same_from_the_bytes() -> None:
    """One test for all cases: the other codec takes seconds to import, and many cases have the same listener."""
    seen: set[Resource] = set()
    for path in CASES:
        for _key, resource in commit_all(read_case((path / "in.yaml").read_text())).all(RESOURCES):
            if resource not in seen:
                assert _theirs(resource) == _ours(resource), f"{path.relative_to(ROOT)}: {resource}"
                seen.add(resource)
    assert len(seen) > len(CASES) / 2


def _theirs(resource: Resource) -> Any:
    return msgspec.json.decode(msgspec.json.encode(decode(resource)))


def _ours(resource: Resource) -> Any:
    return msgspec.to_builtins(MessageToDict(MESSAGES[resource.type_url].FromString(resource.body)))
