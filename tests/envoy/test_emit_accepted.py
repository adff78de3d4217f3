"""Whatever users write, Envoy accepts what is emitted for it."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings

from meshgw.emit.static import emit_static
from tests.property.test_emit import Claims, build, claims, rich_world, slow
from tests.rig.envoy import validate


@settings(slow, max_examples=60)
@given(claims)
def test_any_rule_is_accepted(claimed: Claims) -> None:
    verdict = asyncio.run(validate(build(claimed).static()))
    assert verdict.ok, verdict.error


async def test_every_kind_of_listener_and_cluster_is_accepted() -> None:
    # The certificates of this world are none, so what needs them is left out.
    resources = rich_world().resources
    named = [item for key, item in resources.items() if "Secret" not in key.type_url]
    verdict = await validate(emit_static(named))
    assert verdict.ok, verdict.error
