"""`meshgw analyze`: findings and the exit code."""

from __future__ import annotations

import json

import yaml

from tests.unit.cli.conftest import GATEWAY, ROUTE, Run

ODD = "\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n"


def test_nothing_to_say_is_success(run: Run) -> None:
    done = run("analyze")
    assert (done.exit_code, done.output) == (0, "no findings\n")


def test_an_error_makes_the_exit_code_1(run: Run) -> None:
    done = run("analyze", documents=(GATEWAY, ROUTE))
    assert done.exit_code == 1
    assert "MG2001" in done.output
    assert "meshgw help CODE" in done.output


def test_a_remark_that_is_no_error_leaves_it_0(run: Run) -> None:
    done = run("analyze", "-o", "json", documents=(GATEWAY, ODD))
    (finding,) = json.loads(done.output)
    assert (done.exit_code, finding["code"], finding["level"]) == (0, "MG9104", "info")


def test_programs_get_the_findings_as_documents(run: Run) -> None:
    done = run("analyze", "-o", "yaml", documents=(GATEWAY, ROUTE))
    (finding,) = yaml.safe_load(done.output)
    assert finding["object"] == "HTTPRoute default/route"
    assert finding["field"] == "spec.rules[0].backendRefs[0]"


def test_waypoints_are_served_in_a_mesh_only(run: Run) -> None:
    waypoint = GATEWAY.replace("meshgw,", "meshgw-waypoint,").replace("80, protocol: HTTP", "15008, protocol: HBONE")
    assert "MG5004" in run("analyze", documents=(waypoint,)).output
    assert run("analyze", "--mesh", documents=(waypoint,)).output == "no findings\n"
