"""Drain, stop, output, hosts and pools over HTTP, without a supervisor."""

from __future__ import annotations

from typing import Any

import pytest

from agents import health, output, usage
from agents.models import Agent, AgentSession, Host, Pool
from opscore.models import Project

pytestmark = pytest.mark.django_db

OFFER = {"kind": "worker", "capabilities": ["lint"], "labels": [], "replicas": 2}


def status(agent: dict[str, Any]) -> str:
    return Agent.objects.get(pk=agent["id"]).status


def test_drained_remote_agent_finishes_and_takes_nothing_new(
    api: Any, agent: dict[str, Any], session_id: str
) -> None:
    for _ in range(2):
        assert api("POST", "/tasks", {"capability": "echo"}).status_code == 201
    [task] = api("POST", f"/sessions/{session_id}/claim", {}).json()["tasks"]
    assert api("POST", "/agents/echo-1/drain").status_code == 202
    assert api("POST", "/agents/echo-1/drain").status_code == 202
    assert api("POST", f"/sessions/{session_id}/claim", {}).json()["tasks"] == []
    health.finish_drains()
    assert status(agent) == "draining"
    report = {"fence": task["fence"], "status": "completed", "result": 1}
    assert api("POST", f"/tasks/{task['id']}/report", report).status_code == 204
    health.finish_drains()
    assert status(agent) == "terminated"
    assert AgentSession.objects.get(pk=session_id).end_reason == "drained"
    assert api("POST", f"/sessions/{session_id}/claim", {}).status_code == 409
    health.finish_drains()


def test_drain_of_an_agent_without_a_session_ends_it(api: Any, agent: dict[str, Any]) -> None:
    assert api("POST", "/agents/echo-1/drain").json()["status"] == "terminated"


@pytest.mark.parametrize("force", [True, False])
def test_stopped_remote_agent_ends_at_once(
    api: Any, agent: dict[str, Any], session_id: str, force: bool
) -> None:
    stopped = api("POST", "/agents/echo-1/stop", {"force": force})
    assert (stopped.status_code, stopped.json()["status"]) == (202, "terminated")
    assert AgentSession.objects.get(pk=session_id).ended_at is not None


def test_output_of_an_agent_that_nobody_watches_is_what_was_told_last(
    api: Any, agent: dict[str, Any]
) -> None:
    empty = api("GET", "/agents/echo-1/logs").json()
    assert empty == {"lines": [], "written_at": None, "fresh": False}
    output.write({Agent.objects.get(pk=agent["id"]).pk: "one\ntwo\nthree"})
    told = api("GET", "/agents/echo-1/logs?lines=2").json()
    assert (told["lines"], told["written_at"] is None) == (["two", "three"], False)


@pytest.mark.parametrize("query", ["lines=0", "lines=1001", "lines=many", "lines=²", "line=3"])
def test_output_cannot_be_asked_for_otherwise(api: Any, agent: Any, query: str) -> None:
    refused = api("GET", f"/agents/echo-1/logs?{query}")
    assert refused.status_code == 400
    assert refused.json()["problems"][0]["path"] in {"line", "lines"}


def test_host_shows_its_pools_and_takes_sizes(api: Any, project: Project) -> None:
    host = Host.objects.create(project=project, name="one", specs={"lint": OFFER})
    Agent.objects.create(project=project, name="l", kind="worker", spec="lint", host="one")
    scaled = api("PUT", "/hosts/one/specs/lint", {"replicas": 5})
    assert scaled.status_code == 200
    [spec] = scaled.json()["specs"]
    assert (spec["replicas"], spec["set_replicas"], spec["agents"], spec["active"]) == (2, 5, 1, 0)
    assert Pool.objects.get(host=host).replicas == 5
    assert api("DELETE", "/hosts/one/specs/lint").json()["specs"][0]["set_replicas"] is None
    assert [found["name"] for found in api("GET", "/hosts").json()["results"]] == ["one"]


@pytest.mark.parametrize(
    ("path", "body", "status", "expected"),
    [
        ("/hosts/two/specs/lint", {"replicas": 1}, 404, "There is no host 'two' (known: one)."),
        ("/hosts/one/specs/lnt", {"replicas": 1}, 404, "offers no spec 'lnt' (it has: lint)."),
        ("/hosts/one/specs/lint", {"replicas": -1}, 400, ""),
        ("/hosts/one/specs/lint", {"replicas": 1001}, 400, ""),
        ("/hosts/one/specs/lint", {"replicas": "x"}, 400, ""),
        ("/hosts/one/specs/lint", {}, 400, ""),
        ("/hosts/one/specs/lint", {"replicas": 1, "command": ["sh"]}, 400, ""),
    ],
)
def test_sizes_that_cannot_be_are_refused(
    api: Any, project: Project, *, path: str, body: Any, status: int, expected: str
) -> None:
    Host.objects.create(project=project, name="one", specs={"lint": OFFER})
    refused = api("PUT", path, body)
    assert refused.status_code == status
    assert expected in refused.json()["detail"]
    assert not Pool.objects.exists()


def test_changes_need_the_scope_admin(make_api: Any, agent: dict[str, Any]) -> None:
    write = make_api("read", "write", "agent")
    for method, path in (
        ("POST", "/agents/echo-1/drain"),
        ("POST", "/agents/echo-1/stop"),
        ("PUT", "/hosts/one/specs/x"),
        ("DELETE", "/hosts/one/specs/x"),
    ):
        assert write(method, path, {}).status_code == 403
    assert write("GET", "/agents/echo-1/logs").status_code == 200


def test_usage_is_shown_while_there_is_a_process(api: Any, agent: dict[str, Any]) -> None:
    agent_id = Agent.objects.get(pk=agent["id"]).pk
    assert api("GET", "/agents/echo-1").json()["usage"] is None
    usage.write({agent_id: usage.Usage(1024, 7.123)})
    shown = api("GET", "/agents").json()["results"][0]["usage"]
    assert (shown["memory_bytes"], shown["cpu_percent"]) == (1024, 7.12)
    usage.forget([agent_id])
    assert api("GET", "/agents/echo-1").json()["usage"] is None
