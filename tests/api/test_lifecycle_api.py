"""Drain, stop, output, hosts and pools over HTTP, without a supervisor."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db.models.functions import Now

from agents import health, output, sessions, usage
from agents.models import Agent, AgentOutput, AgentSession, Host, Pool
from agents.specs import RESERVED
from opscore.models import Project
from tests.conftest import WaitUntil
from tests.live_server import Server

pytestmark = pytest.mark.django_db

OFFER = {"kind": "worker", "capabilities": ["lint"], "labels": [], "replicas": 2}
RULE = {"min": 1, "max": 4, "queue_wait_s": 2.0}


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
    # Nobody was asked: no supervisor could answer.
    assert not AgentOutput.objects.filter(asked_at__isnull=False).exists()


def test_output_that_was_told_within_a_second_is_told_again(api: Any, project: Project) -> None:
    Host.objects.create(project=project, name="one", pid=1)
    agent = Agent.objects.create(project=project, name="l", kind="worker", spec="l", host="one")
    output.write({agent.pk: "one"})
    assert api("GET", "/agents/l/logs").json()["fresh"] is True
    AgentOutput.objects.update(written_at=Now() - timedelta(seconds=2))
    # Its supervisor lives, as far as anybody knows, and does not answer.
    assert output.tail(agent, 5, patience_s=0.1).is_fresh is False
    assert AgentOutput.objects.filter(asked_at__isnull=False).exists()
    Host.objects.update(seen_at=Now() - timedelta(hours=1))
    AgentOutput.objects.update(asked_at=None)
    assert output.tail(agent, 5).lines == ["one"]
    assert not AgentOutput.objects.filter(asked_at__isnull=False).exists()


@pytest.mark.django_db(transaction=True)
def test_who_waits_for_output_holds_up_nobody(
    server: Server, project: Project, wait_until: WaitUntil
) -> None:
    Host.objects.create(project=project, name="one", pid=1)
    agents = [
        Agent.objects.create(project=project, name=f"l{n}", kind="worker", spec="l", host="one")
        for n in range(24)
    ]
    with ThreadPoolExecutor(len(agents)) as pool, server.client() as http:
        began = time.monotonic()
        turns = [pool.submit(http.get, f"/agents/{one.name}/logs") for one in agents[1:]]
        answers = [turn.result(30) for turn in turns]
        took_s = time.monotonic() - began
        assert {answer.json()["fresh"] for answer in answers} == {False}
        # No supervisor answers: each waits for two seconds, but no eight of them for all others.
        assert took_s < 4.5
        turn = pool.submit(http.get, f"/agents/{agents[0].name}/logs?lines=1")
        wait_until(lambda: agents[0].pk in {asked.agent_id for asked in output.asked("one")})
        output.write({agents[0].pk: "a\nb"})
        told = turn.result(10).json()
    assert (told["lines"], told["fresh"]) == (["b"], True)


def test_drained_agent_that_is_gone_does_not_drain_for_ever(
    api: Any, agent: dict[str, Any], session_id: str
) -> None:
    assert api("POST", "/agents/echo-1/drain").status_code == 202
    sessions.end([UUID(session_id)], "it died")
    assert status(agent) == "draining"
    health.finish_drains()
    assert status(agent) == "terminated"


@pytest.mark.parametrize("lives", [True, False])
def test_drained_agent_of_a_host_that_is_gone_does_not_drain_for_ever(
    project: Project, *, lives: bool
) -> None:
    Host.objects.create(project=project, name="one", pid=1 if lives else None)
    fields = {"kind": "worker", "spec": "l", "host": "one", "desired": "stopped"}
    agent = Agent.objects.create(project=project, name="l", status="draining", **fields)
    health.finish_drains()
    agent.refresh_from_db()
    assert agent.status == ("draining" if lives else "terminated")


def test_agent_that_signs_off_is_not_active_any_more(
    api: Any, agent: dict[str, Any], session_id: str
) -> None:
    for _ in range(2):
        assert api("DELETE", f"/sessions/{session_id}").status_code == 204
        assert status(agent) == "terminated"
    later = api("POST", "/agents/echo-1/sessions", {})
    assert later.status_code == 201
    # Late news of the earlier life.
    assert api("DELETE", f"/sessions/{session_id}").status_code == 204
    assert status(agent) == "active"


def test_platforms_own_agent_cannot_be_drained(api: Any, project: Project) -> None:
    # Also while its host is down: nobody would start it again.
    fields = {"kind": "worker", "spec": RESERVED, "host": "gone"}
    Agent.objects.create(project=project, name="platform-1", **fields)
    assert api("POST", "/agents/platform-1/drain").status_code == 409
    assert Agent.objects.get(name="platform-1").desired == "running"


@pytest.mark.parametrize("query", ["lines=0", "lines=1001", "lines=many", "lines=²", "line=3"])
def test_output_cannot_be_asked_for_otherwise(api: Any, agent: Any, query: str) -> None:
    refused = api("GET", f"/agents/echo-1/logs?{query}")
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["path"] in {"line", "lines"}


def test_dead_host_is_shown_as_such_and_can_be_forgotten(api: Any, project: Project) -> None:
    host = Host.objects.create(project=project, name="one", pid=1, specs={"lint": OFFER})
    agent = Agent.objects.create(project=project, name="l", kind="worker", spec="lint", host="one")
    assert api("PUT", "/hosts/one/specs/lint", {"replicas": 5}).json()["live"] is True
    assert api("DELETE", "/hosts/one").status_code == 409
    Host.objects.filter(pk=host.pk).update(seen_at="2020-01-01T00:00:00Z")
    assert api("PUT", "/hosts/one/specs/lint", {"replicas": 5}).json()["live"] is False
    assert api("DELETE", "/hosts/one").status_code == 204
    assert not Host.objects.exists()
    assert not Pool.objects.exists()
    agent.refresh_from_db()
    assert (agent.status, agent.desired) == ("terminated", "stopped")


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
        ("/hosts/one/specs/lint", {"replicas": 1, "autoscale": RULE}, 400, "Say either"),
        (
            "/hosts/one/specs/lint",
            {"autoscale": RULE | {"min": 5}},
            400,
            "min is above max (5 > 4)",
        ),
        ("/hosts/one/specs/lint", {"autoscale": RULE | {"max": 1001}}, 400, "1000"),
        ("/hosts/one/specs/lint", {"autoscale": RULE | {"queue_wait_s": 0}}, 400, "0.1"),
        ("/hosts/one/specs/lint", {"autoscale": {"min": 1}}, 400, ""),
        ("/hosts/one/specs/lnt", {"autoscale": RULE}, 404, "offers no spec 'lnt' (it has: lint)."),
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


@pytest.mark.parametrize(
    ("body", "path"),
    [({"replicas": 4}, "replicas"), ({"autoscale": RULE | {"max": 4}}, "autoscale.max")],
)
def test_pools_that_the_host_does_not_carry_are_refused(
    api: Any, project: Project, *, body: Any, path: str
) -> None:
    specs = {"lint": OFFER | {"max_replicas": 9}, "test": OFFER}
    host = Host.objects.create(project=project, name="one", specs=specs, carries=6)
    Agent.objects.create(
        project=project, name="platform-1", kind="worker", spec=RESERVED, host="one", replica=1
    )
    refused = api("PUT", "/hosts/one/specs/lint", body)
    assert refused.status_code == 400
    [problem] = refused.json()["errors"]
    assert problem["path"] == path
    assert (
        "limit of open files (ulimit -n) one can have 6 agents at once: 3 of lint"
        in (problem["message"])
    )
    assert api("PUT", "/hosts/one/specs/lint", {"replicas": 3}).json()["carries"] == 6
    Host.objects.filter(pk=host.pk).update(carries=None)
    assert api("PUT", "/hosts/one/specs/lint", body).status_code == 200


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
