"""The writer of proxies' objects against an API server that merges what is applied."""

from __future__ import annotations

from typing import Any

import msgspec

from meshgw.api.meta import Key
from meshgw.emit.tables import ProxyObject
from meshgw.ir.proxy import Deploying
from meshgw.kube.errors import UnreachableError
from meshgw.kube.seen import Seen
from tests.unit.write.merging import (
    ACCOUNT,
    APPLY,
    APPLY_WORKLOAD,
    CONFIG_MAP,
    DEPLOYMENT,
    GATEWAY,
    KINDS,
    PATH,
    SERVICE,
    WORKLOAD,
    Cluster,
    body,
    marked,
    plan,
    unowned,
)
from tests.unit.write.parts import Request, refusal, running, settle


async def test_an_object_is_made_and_then_left_alone() -> None:
    cluster = Cluster()
    async with running(cluster.writer.run):
        await cluster.bring(body(), plan=plan())
        assert cluster.client.made == [f"GET {PATH}", APPLY]
        cluster.show()
        cluster.put(body() | {"status": {"readyReplicas": 1}})
        cluster.show()
        await cluster.timer.advance(60)
        assert cluster.writes == [APPLY]
        assert cluster.reports == []


async def test_what_others_change_is_put_right() -> None:
    cluster = Cluster()
    async with running(cluster.writer.run):
        await cluster.bring(body(), plan=plan())
        cluster.put(body(replicas=7))
        cluster.show()
        await cluster.timer.advance(2)
        assert cluster.objects[CONFIG_MAP]["spec"] == {"replicas": 2}
        cluster.show()
        await cluster.timer.advance(60)
        assert cluster.writes == [APPLY, APPLY]


async def test_what_others_add_beside_costs_one_apply() -> None:
    cluster = Cluster()
    async with running(cluster.writer.run):
        await cluster.bring(body(), plan=plan())
        cluster.put(body(), annotations={"kubectl.kubernetes.io/restartedAt": "now"})
        for _ in range(5):
            cluster.show()
            await cluster.timer.advance(5)
        assert cluster.writes == [APPLY, APPLY]


async def test_what_others_delete_is_made_again() -> None:
    cluster = Cluster()
    async with running(cluster.writer.run):
        await cluster.bring(body(), plan=plan())
        cluster.objects.clear()
        cluster.show()
        await cluster.timer.advance(2)
        assert CONFIG_MAP in cluster.objects


async def test_what_is_not_needed_any_more_is_deleted() -> None:
    cluster = Cluster()
    async with running(cluster.writer.run):
        await cluster.bring(body(), plan=plan())
        cluster.show()
        await cluster.bring(None)
        assert cluster.objects == {}
        assert cluster.client.requests[-1].body["propagationPolicy"] == "Background"
        cluster.show()
        assert cluster.writer._objects == {}


async def test_leftovers_of_an_earlier_run_are_deleted() -> None:
    cluster = Cluster()
    cluster.put(body())
    cluster.show()
    cluster.writer.desire({}, {GATEWAY: plan(Deploying.SELF_MANAGED)})
    async with running(cluster.writer.run):
        await cluster.timer.advance(2)
        assert cluster.objects == {}


async def test_a_gateway_whose_plan_is_unknown_keeps_what_it_has() -> None:
    cluster = Cluster()
    cluster.put(body())
    async with running(cluster.writer.run):
        await cluster.bring(body(), plan=plan())
        cluster.show()
        cluster.want(None, plan=plan(Deploying.HELD))
        await cluster.timer.advance(60)
        assert CONFIG_MAP in cluster.objects
        cluster.writer.desire({}, {GATEWAY: plan(Deploying.SELF_MANAGED)})
        await cluster.timer.advance(2)
        assert cluster.objects == {}


async def test_a_gateway_that_is_given_away_loses_its_objects() -> None:
    cluster = Cluster()
    async with running(cluster.writer.run):
        await cluster.bring(body(), plan=plan())
        cluster.show()
        await cluster.bring(None, plan=plan(Deploying.RELEASED))
        assert cluster.objects == {}
        cluster.show()
        assert cluster.writer._objects == {}


async def test_what_was_given_away_before_a_restart_is_removed_after_it() -> None:
    cluster = Cluster()
    cluster.put(marked(body()))
    cluster.put(marked(body("other", SERVICE)))
    cluster.show()
    cluster.show(SERVICE)
    cluster.writer.desire({}, {GATEWAY: plan(Deploying.RELEASED)})
    async with running(cluster.writer.run):
        await cluster.timer.advance(60)
        assert set(cluster.objects) == {SERVICE}, "of an earlier Gateway of that name"


async def test_what_another_installation_made_for_its_gateway_is_left_alone() -> None:
    cluster = Cluster()
    cluster.put(marked(body(), "meshgw.dev/other"))
    cluster.put(body(ref=SERVICE))  # nobody knows who made it
    cluster.show()
    cluster.show(SERVICE)
    cluster.writer.desire({}, {GATEWAY: plan(Deploying.RELEASED)})
    async with running(cluster.writer.run):
        await cluster.timer.advance(60)
        assert cluster.client.made == []
        # It is taken over with the Gateway, whose class names this one by now, and then removed like any other.
        await cluster.bring(body(), plan=plan())
        cluster.show()
        await cluster.bring(None, plan=plan(Deploying.RELEASED))
        assert cluster.objects == {}


async def test_what_a_gateway_without_a_plan_owns_is_left_to_the_garbage_collector() -> None:
    cluster = Cluster()
    async with running(cluster.writer.run):
        await cluster.bring(body(), plan=plan())
        cluster.show()
        cluster.want(None, plan=None)
        cluster.show()
        await cluster.timer.advance(60)
        assert CONFIG_MAP in cluster.objects
        assert cluster.writes == [APPLY]


async def test_objects_of_gateways_that_are_not_ours_are_left_alone() -> None:
    cluster = Cluster()
    cluster.put(body("other"))
    unlabelled = body()
    unlabelled["metadata"]["labels"] = {}
    unlabelled["metadata"]["name"] = "mine"
    mine = cluster.put(unlabelled)
    async with running(cluster.writer.run):
        cluster.show()
        cluster.show(mine)
        cluster.writer.desire({}, {GATEWAY: plan()})
        await cluster.timer.advance(60)
        assert cluster.client.made == []


async def test_a_name_that_somebody_else_has_is_a_problem_and_not_taken() -> None:
    cluster = Cluster()
    foreign = unowned()
    cluster.put(foreign)
    async with running(cluster.writer.run):
        await cluster.bring(body(), plan=plan())
        assert cluster.writes == []
        assert cluster.reports == [(GATEWAY, ["NameTaken"])]
        assert "ConfigMap shop/gw-c exists" in cluster.writer.problems(GATEWAY)[0].message
        cluster.objects.clear()
        await cluster.timer.advance(10)
        assert cluster.writes == [APPLY]
        assert cluster.reports[1:] == [(GATEWAY, [])]


async def test_refusals_are_problems_of_the_gateway_until_they_are_over() -> None:
    cluster = Cluster()
    cluster.refusals = [refusal(403, "Forbidden", "exceeded quota: few, requested: count/deployments.apps=1")] * 2
    async with running(cluster.writer.run):
        cluster.want(body(), plan=plan())
        cluster.want(body(ref=SERVICE), SERVICE)
        await settle()
        assert cluster.reports[-1] == (GATEWAY, ["Forbidden", "Forbidden"])
        assert "exceeded quota: few" in cluster.writer.problems(GATEWAY)[0].message
        await cluster.timer.advance(10)
        assert cluster.reports[-1] == (GATEWAY, [])
        cluster.refusals = [refusal(404, "NotFound", 'namespaces "shop" not found')]
        cluster.want(body(replicas=3))
        await settle()
        assert cluster.reports[-1] == (GATEWAY, ["NotFound"])
        cluster.want(None)
        assert cluster.reports[-1] == (GATEWAY, []), "what is not wanted is no problem"


async def test_fields_that_the_server_cannot_read_are_a_problem_whatever_the_status() -> None:
    cluster = Cluster()
    message = "failed to create typed patch object (x; apps/v1, Kind=Deployment): .spec.replicaz: field not declared"
    cluster.refusals = [refusal(500, "Internal Server Error", message)]
    async with running(cluster.writer.run):
        cluster.want(body(), plan=plan())
        await settle()
        assert cluster.reports == [(GATEWAY, ["Invalid"])]
        assert "replicaz" in cluster.writer.problems(GATEWAY)[0].message


async def test_conflicts_of_quota_counting_are_tried_again() -> None:
    cluster = Cluster()
    cluster.refusals = [refusal(409, "Conflict", "resourcequotas"), UnreachableError("away")]
    async with running(cluster.writer.run):
        cluster.want(body(), plan=plan())
        await cluster.timer.advance(10)
        assert len(cluster.writes) == 3
        assert cluster.reports == []


async def test_a_workload_without_ready_pods_is_made_anew_if_it_must() -> None:
    cluster = Cluster()
    async with running(cluster.writer.run):
        await cluster.give_account()
        await cluster.bring(body(ref=DEPLOYMENT), DEPLOYMENT)
        cluster.show(DEPLOYMENT)
        before = cluster.objects[DEPLOYMENT]["metadata"]["uid"]
        cluster.refusals = [refusal(422, "Invalid", "spec.selector: Invalid value: field is immutable")]
        await cluster.bring(body(ref=DEPLOYMENT, selector="new"), DEPLOYMENT)
        assert cluster.writes[2:] == [APPLY_WORKLOAD, f"DELETE {WORKLOAD}", APPLY_WORKLOAD]
        assert cluster.objects[DEPLOYMENT]["metadata"]["uid"] != before
        assert cluster.reports == []


async def test_a_workload_that_serves_is_not_deleted_for_a_change() -> None:
    cluster = Cluster()
    async with running(cluster.writer.run):
        await cluster.give_account()
        await cluster.bring(body(ref=DEPLOYMENT), DEPLOYMENT)
        cluster.put(body(ref=DEPLOYMENT) | {"status": {"readyReplicas": 1}})
        cluster.show(DEPLOYMENT)
        cluster.refusals = [refusal(422, "Invalid", "spec.selector: Invalid value: field is immutable")]
        await cluster.bring(body(ref=DEPLOYMENT, selector="new"), DEPLOYMENT)
        assert cluster.writes[2:] == [APPLY_WORKLOAD]
        assert cluster.reports == [(GATEWAY, ["Immutable"])]
        assert "Delete it" in cluster.writer.problems(GATEWAY)[0].message


async def test_an_object_that_is_being_deleted_is_waited_for() -> None:
    cluster = Cluster()
    cluster.put(body(), deletionTimestamp="2026-01-01T00:00:00Z")
    async with running(cluster.writer.run):
        cluster.show()
        cluster.want(body(), plan=plan())
        await cluster.timer.advance(60)
        assert cluster.writes == []
        assert cluster.reports == [(GATEWAY, ["Terminating"])]
        cluster.objects.clear()
        cluster.show()
        await settle()
        assert cluster.writes == [APPLY]
        assert cluster.reports[-1] == (GATEWAY, [])


async def test_who_does_not_lead_asks_and_writes_nothing() -> None:
    cluster = Cluster()
    cluster.leads = False
    async with running(cluster.writer.run):
        cluster.want(body(), plan=plan())
        await cluster.timer.advance(60)
        assert cluster.client.made == []


async def test_who_begins_to_lead_applies_what_is_not_in_force() -> None:
    cluster = Cluster()
    cluster.put(body())
    cluster.show()
    cluster.want(body(), plan=plan())
    for _turn in (1, 2):
        async with running(cluster.writer.run):
            await cluster.timer.advance(60)
        assert cluster.writes == [APPLY]
    cluster.show()
    # The next one applies nothing that it finds in force, but what was changed while nobody led, or is another now.
    for changed, wanted, writes in (
        (body(), body(), []),
        (body(replicas=3), body(), [APPLY]),
        (body(), body(replicas=3), [APPLY]),
    ):
        cluster.put(changed)
        follower = cluster.successor()
        follower.show()
        follower.want(wanted, plan=plan())
        async with running(follower.writer.run):
            await follower.timer.advance(60)
        assert follower.writes == writes
        cluster.want(body())


async def test_of_two_installations_of_one_name_the_last_has_the_objects_and_the_first_does_not_fight() -> None:
    first, last = Cluster(), Cluster(home="elsewhere")
    last.objects = first.objects
    mine, theirs = body(replicas=1), body(replicas=2)
    async with running(first.writer.run):
        await first.bring(mine, plan=plan())
        async with running(last.writer.run):
            last.show()
            await last.bring(theirs, plan=plan())
            for _ in range(3):
                first.show()
                await first.timer.advance(60)
                last.show()
                await last.timer.advance(60)
            assert (first.writes, last.writes) == ([APPLY], [APPLY])
            assert first.objects[CONFIG_MAP]["spec"] == {"replicas": 2}
            # Also of what changes from now on.
            first.want(body(replicas=7))
            await first.timer.advance(60)
            assert first.writes == [APPLY]
            assert first.reports == []


async def test_what_another_controller_applied_last_is_applied_even_if_it_is_the_same() -> None:
    cluster = Cluster()
    async with running(cluster.writer.run):
        await cluster.bring(body(), plan=plan())
    annotations = cluster.objects[CONFIG_MAP]["metadata"]["annotations"] | {"meshgw.dev/controller": "meshgw.dev/other"}
    cluster.put(body(), annotations=annotations)
    follower = cluster.successor()
    follower.show()
    follower.want(body(), plan=plan())
    async with running(follower.writer.run):
        await follower.timer.advance(60)
    assert follower.writes == [APPLY]


async def test_problems_end_with_the_lead() -> None:
    cluster = Cluster()
    cluster.refusals = [refusal(403, "Forbidden", "no")]
    async with running(cluster.writer.run):
        cluster.want(body(), plan=plan())
        await settle()
    assert cluster.reports == [(GATEWAY, ["Forbidden"])]
    async with running(cluster.writer.run):
        await settle()
    assert cluster.reports[1:] == [(GATEWAY, [])]


async def test_accounts_come_before_what_runs_as_them() -> None:
    cluster = Cluster()
    async with running(cluster.writer.run):
        rows = {
            ref: ProxyObject(gateway=GATEWAY, api_version="v1", body=msgspec.json.encode(body(ref=ref)))
            for ref in (DEPLOYMENT, SERVICE, ACCOUNT)
        }
        cluster.writer.desire(rows, {GATEWAY: plan()})
        await cluster.timer.advance(2)
    assert [request.path.split("/")[-2] for request in cluster.client.requests if request.method == "PATCH"] == [
        "serviceaccounts",
        "services",
        "deployments",
    ]


async def test_nothing_runs_as_an_account_that_somebody_else_made() -> None:
    cluster = Cluster()
    foreign = unowned(ACCOUNT)
    cluster.put(foreign)
    async with running(cluster.writer.run):
        cluster.want(body(ref=ACCOUNT), ACCOUNT, plan=plan())
        cluster.want(body(ref=DEPLOYMENT), DEPLOYMENT)
        await cluster.timer.advance(60)
        assert cluster.writes == []
        assert cluster.reports == [(GATEWAY, ["NameTaken"])]
        del cluster.objects[ACCOUNT]
        await cluster.timer.advance(60)
        assert [write.split("/")[-2] for write in cluster.writes] == ["serviceaccounts", "deployments"]
        assert cluster.reports[1:] == [(GATEWAY, [])]


async def test_a_workload_waits_for_the_account_of_its_own_gateway() -> None:
    cluster = Cluster()
    cluster.put(body("earlier", ACCOUNT))
    async with running(cluster.writer.run):
        cluster.show(ACCOUNT)
        cluster.want(body(ref=DEPLOYMENT), DEPLOYMENT, plan=plan())
        await cluster.timer.advance(60)
        assert cluster.writes == []
        assert cluster.reports == [(GATEWAY, ["NoServiceAccount"])]
        cluster.want(body(ref=ACCOUNT), ACCOUNT)
        await cluster.timer.advance(60)
        assert [write.split("/")[-2] for write in cluster.writes] == ["serviceaccounts", "deployments"]
        assert cluster.reports[1:] == [(GATEWAY, [])]


async def test_what_somebody_makes_in_between_is_not_taken() -> None:
    cluster = Cluster()
    foreign = unowned()
    answer = cluster.client.answer

    def late(request: Request) -> Any:
        found = answer(request)
        if request.method == "GET" and CONFIG_MAP not in cluster.objects:
            cluster.put(foreign)
        return found

    cluster.client.answer = late
    async with running(cluster.writer.run):
        cluster.want(body(), plan=plan())
        await cluster.timer.advance(10)
        assert cluster.reports == [(GATEWAY, ["NameTaken"])]
        assert "ownerReferences" not in cluster.objects[CONFIG_MAP]["metadata"]


async def test_what_takes_the_place_of_ours_unseen_is_not_taken() -> None:
    cluster = Cluster()
    async with running(cluster.writer.run):
        await cluster.bring(body(), plan=plan())
        cluster.show()
        foreign = unowned()
        cluster.objects.clear()
        cluster.put(foreign)
        await cluster.bring(body(replicas=9))
        assert "ownerReferences" not in cluster.objects[CONFIG_MAP]["metadata"]
        cluster.writer.observe(KINDS["ConfigMap"], [Seen(Key("shop", "gw-c"), None, None)])
        await cluster.timer.advance(60)
        assert cluster.reports == [(GATEWAY, ["NameTaken"])]
        assert "ownerReferences" not in cluster.objects[CONFIG_MAP]["metadata"]


async def test_a_namespace_that_is_served_no_longer_keeps_what_is_there() -> None:
    cluster = Cluster()
    async with running(cluster.writer.run):
        await cluster.bring(body(), plan=plan())
        cluster.show()
        cluster.writer.forget("shop")
        cluster.writer.observe(KINDS["ConfigMap"], [Seen(Key("shop", "gw-c"), None, None)])
        await cluster.timer.advance(60)
        cluster.want(None, plan=None)
        await cluster.timer.advance(60)
        assert cluster.writes == [APPLY]
        assert cluster.writer._objects == {}
        cluster.put(body(replicas=3))
        cluster.want(body(), plan=plan())
        cluster.show()
        await cluster.timer.advance(60)
        assert cluster.writes == [APPLY, APPLY], "it is served again"


async def test_what_is_under_way_for_a_namespace_that_leaves_is_not_written() -> None:
    cluster = Cluster()
    answer = cluster.client.answer

    def late(request: Request) -> Any:
        cluster.writer.forget("shop")
        return answer(request)

    cluster.client.answer = late
    async with running(cluster.writer.run):
        cluster.want(body(), plan=plan())
        await cluster.timer.advance(60)
        assert cluster.client.made == [f"GET {PATH}"]
        assert cluster.reports == []


async def test_problems_leave_with_their_namespace() -> None:
    cluster = Cluster()
    cluster.refusals = [refusal(403, "Forbidden", "no")]
    async with running(cluster.writer.run):
        cluster.want(body(), plan=plan())
        await settle()
        cluster.writer.forget("other")
        assert cluster.reports == [(GATEWAY, ["Forbidden"])]
        cluster.writer.forget("shop")
        assert cluster.reports[1:] == [(GATEWAY, [])]
        assert cluster.writer.problems(GATEWAY) == ()
