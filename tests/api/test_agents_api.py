"""Agents over REST: register, list, show, restart, stop."""

from __future__ import annotations

from typing import Any

import pytest

from agents.models import Agent, Host
from opscore.models import Event, Project

pytestmark = pytest.mark.django_db


def test_register_and_register_again(api: Any) -> None:
    body = {"name": "r1", "kind": "remote", "capabilities": ["echo"], "labels": ["gpu"]}
    made = api("POST", "/api/v1/agents", body)
    assert made.status_code == 201
    assert made["Location"] == f"/api/v1/agents/{made.json()['id']}"
    again = api("POST", "/agents", {**body, "capabilities": ["echo", "sum"]})
    assert again.status_code == 200
    assert again.json()["id"] == made.json()["id"]
    assert api("GET", "/agents/r1").json()["capabilities"] == ["echo", "sum"]
    assert api("GET", made["Location"]).json()["labels"] == ["gpu"]


def test_a_name_of_another_kind_is_a_conflict(api: Any, agent: dict[str, Any]) -> None:
    body = {"name": "echo-1", "kind": "http", "url": "http://agent.invalid/"}
    assert api("POST", "/agents", body).status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "a"},
        {"name": "a", "kind": "wibble"},
        {"name": "a b/c", "kind": "remote"},
        {"name": "a", "kind": "worker", "spec": "nobody"},
        {"name": "a", "kind": "remote", "capabilities": [""]},
        {"name": "a", "kind": "remote", "capabilities": "echo"},
        {"name": "a", "kind": "remote", "capability": ["echo"]},
    ],
)
def test_agents_that_make_no_sense_are_refused(api: Any, body: dict[str, Any]) -> None:
    answer = api("POST", "/agents", body)
    assert answer.status_code == 400
    assert answer.json()["errors"]
    assert not Agent.objects.exists()


def test_list_has_filters_and_pages(api: Any) -> None:
    for number in range(5):
        body = {"name": f"n{number}", "kind": "remote", "capabilities": ["a"]}
        if number % 2 == 0:
            body |= {"kind": "http", "url": "http://agent.invalid/", "capabilities": ["a", "b"]}
        assert api("POST", "/agents", body).status_code == 201
    page = api("GET", "/api/v1/agents?limit=2").json()
    assert [row["name"] for row in page["results"]] == ["n4", "n3"]
    assert page["next"].startswith("/api/v1/agents?")
    page = api("GET", page["next"]).json()
    assert [row["name"] for row in page["results"]] == ["n2", "n1"]
    page = api("GET", page["next"]).json()
    assert ([row["name"] for row in page["results"]], page["next"]) == (["n0"], None)
    assert len(api("GET", "/agents?kind=remote").json()["results"]) == 2
    assert len(api("GET", "/agents?capability=b").json()["results"]) == 3
    assert len(api("GET", "/agents?status=initializing,error").json()["results"]) == 5
    assert api("GET", "/agents?status=busy").json()["results"] == []


def test_an_active_agent_with_a_task_is_busy(api: Any, session_id: str) -> None:
    assert api("GET", "/agents/echo-1").json()["status"] == "active"
    api("POST", "/tasks", {"capability": "echo"})
    assert api("POST", f"/sessions/{session_id}/claim", {}).json()["tasks"]
    shown = api("GET", "/agents/echo-1").json()
    assert (shown["status"], shown["running_tasks"]) == ("busy", 1)
    assert [row["name"] for row in api("GET", "/agents?status=busy").json()["results"]] == [
        "echo-1"
    ]
    assert api("GET", "/agents?status=active").json()["results"] == []
    assert len(api("GET", "/agents?status=active,busy").json()["results"]) == 1


def test_stop_ends_a_remote_agent_and_its_session(api: Any, session_id: str) -> None:
    stopped = api("DELETE", "/agents/echo-1")
    assert stopped.status_code == 202
    assert stopped.json()["desired"] == "stopped"
    shown = api("GET", "/agents/echo-1").json()
    assert shown["status"] == "terminated"
    assert shown["sessions"][0]["ended_at"]
    assert api("POST", "/agents/echo-1/sessions", {}).status_code == 409


def test_restart_is_for_agents_that_the_platform_starts(api: Any, project: Project) -> None:
    spec = {"kind": "worker", "capabilities": ["sum"], "labels": []}
    Host.objects.create(project=project, name="here", pid=1, specs={"adder": spec})
    body = {"name": "w1", "kind": "worker", "spec": "adder"}
    made = api("POST", "/agents", body)
    assert made.status_code == 201
    assert made.json()["capabilities"] == ["sum"]
    assert api("POST", "/agents/w1/restart").status_code == 202
    assert Agent.objects.get(name="w1").generation == 2
    assert api("POST", "/agents/w1/sessions", {}).status_code == 409
    api("POST", "/agents", {"name": "r1", "kind": "remote"})
    assert api("POST", "/agents/r1/restart").status_code == 409


def test_who_did_it_stands_in_the_events(api: Any, agent: dict[str, Any]) -> None:
    rows = api("GET", f"/events?agent={agent['id']}&kind=agent.").json()["results"]
    assert rows[0]["actor"] == "test"
    assert Event.objects.filter(agent_id=agent["id"]).exists()
