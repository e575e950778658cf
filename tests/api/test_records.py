"""What became of runs, tasks, agents and workflows, over REST."""

from __future__ import annotations

from typing import Any

import pytest

from opscore.models import Project
from tasks.reconcile import reconcile
from tests.round_trips import round_trips

pytestmark = pytest.mark.django_db(transaction=True)

DIAMOND = """
name: diamond
tasks:
  a: {capability: echo, retry: {limit: 1, initial: 1ms}}
  b: {capability: echo, needs: [a]}
  c1: {capability: echo, needs: [a]}
  d: {uses: approval, needs: [b, c1]}
"""
NOBODY = "00000000-0000-0000-0000-000000000001"


@pytest.fixture
def run(api: Any) -> dict[str, Any]:
    uploaded = api("POST", "/workflows", DIAMOND, Content_Type="text/yaml")
    assert uploaded.status_code == 201, uploaded.content
    started: dict[str, Any] = api("POST", "/workflows/diamond/execute", {}).json()
    return started


def claim(api: Any, session_id: str) -> dict[str, Any]:
    [task] = api("POST", f"/sessions/{session_id}/claim", {}).json()["tasks"]
    return dict(task)


def report(api: Any, task: dict[str, Any], **body: Any) -> None:
    said = {"fence": task["fence"], "status": "completed", **body}
    assert api("POST", f"/tasks/{task['id']}/report", said).status_code == 204


def test_every_try_of_a_task_is_shown(api: Any, session_id: str) -> None:
    retry = {"limit": 1, "initial_s": 0}
    task = api("POST", "/tasks", {"capability": "echo", "retry": retry}).json()
    path = f"/tasks/{task['id']}/attempts"
    assert api("GET", path).json() == {"attempts": []}
    error = {"type": "odd", "message": "no"}
    report(api, claim(api, session_id), status="failed", error=error)
    [failed] = api("GET", path).json()["attempts"]
    assert (failed["number"], failed["outcome"], failed["error"]["type"]) == (1, "failed", "odd")
    assert (failed["agent"]["name"], failed["session_id"]) == ("echo-1", session_id)
    reconcile()
    second = claim(api, session_id)
    assert [one["outcome"] for one in api("GET", path).json()["attempts"]] == ["failed", "running"]
    report(api, second, result=1)
    [_, done] = api("GET", path).json()["attempts"]
    assert (done["number"], done["outcome"]) == (2, "completed")
    assert done["ended_at"] > done["started_at"]
    kinds = [event["kind"] for event in api("GET", f"/tasks/{task['id']}/events").json()["results"]]
    assert kinds == ["task.retrying"]


def test_graph_of_a_run_has_nodes_and_edges(api: Any, session_id: str, run: Any) -> None:
    report(api, claim(api, session_id))
    graph = api("GET", f"/runs/{run['id']}/graph").json()
    keys = {node["id"]: node["key"] for node in graph["nodes"]}
    assert {(keys[edge["from"]], keys[edge["to"]]) for edge in graph["edges"]} == {
        ("a", "b"),
        ("a", "c1"),
        ("b", "d"),
        ("c1", "d"),
    }
    assert {node["key"]: node["status"] for node in graph["nodes"]} == {
        "a": "completed",
        "b": "queued",
        "c1": "queued",
        "d": "pending",
    }
    assert (graph["status"], "mermaid" in graph) == ("running", False)
    drawn = api("GET", f"/runs/{run['id']}/graph?format=mermaid").json()["mermaid"]
    assert drawn.startswith("flowchart TD\n")
    assert drawn.count("-->") == 4
    wrong = api("GET", f"/runs/{run['id']}/graph?format=mermaide")
    assert "did you mean 'mermaid'?" in wrong.json()["errors"][0]["message"]


def test_timeline_of_a_run_is_in_order_and_in_few_statements(
    api: Any, session_id: str, run: Any
) -> None:
    path = f"/runs/{run['id']}/timeline"
    report(api, claim(api, session_id))
    with round_trips() as few:
        api("GET", path)
    for _ in range(2):
        report(api, claim(api, session_id))
    with round_trips() as more:
        shown = api("GET", path).json()
    assert len(more) == len(few)
    assert [task["key"] for task in shown["tasks"]] in (
        ["a", "b", "c1", "d"],
        ["a", "c1", "b", "d"],
    )
    began = [task["started_at"] for task in shown["tasks"] if task["started_at"]]
    assert began == sorted(began)
    [tried] = shown["tasks"][0]["attempts"]
    assert (tried["agent"]["name"], tried["outcome"]) == ("echo-1", "completed")
    assert shown["completed_at"] is None


def test_events_and_approvals_of_one_run(api: Any, session_id: str, run: Any) -> None:
    other = api("POST", "/tasks", {"capability": "nobody"}).json()
    for _ in range(3):
        report(api, claim(api, session_id))
    [waiting] = api("GET", f"/runs/{run['id']}/approvals").json()["results"]
    assert waiting["key"] == "d"
    assert api("GET", f"/runs/{other['run_id']}/approvals").json()["results"] == []
    api("PUT", f"/runs/{run['id']}/cancel")
    events = api("GET", f"/runs/{run['id']}/events").json()["results"]
    assert {event["run_id"] for event in events} == {run["id"]}
    assert events


def test_lives_of_an_agent(api: Any, session_id: str) -> None:
    second = api("POST", "/agents/echo-1/sessions", {"host": "here"}).json()["session_id"]
    lives = api("GET", "/agents/echo-1/sessions").json()["results"]
    assert [life["id"] for life in lives] == [second, session_id]
    assert (lives[0]["ended_at"], lives[0]["host"]) == (None, "here")
    assert api("GET", f"/sessions/{session_id}").json() == lives[1]
    assert lives[1]["ended_at"]
    api("POST", "/agents/echo-1/pause")
    events = api("GET", "/agents/echo-1/events").json()["results"]
    assert "agent.paused" in {event["kind"] for event in events}


def test_versions_of_a_workflow(api: Any) -> None:
    for word in ("", "summer", "3"):
        text = f"name: w\ndescription: about {word}\nversion: {word!r}\n"
        text = text.replace("version: ''\n", "") + "tasks: {a: {capability: x}}"
        assert api("POST", "/workflows", text, Content_Type="text/yaml").status_code == 201
    found = api("GET", "/workflows/w/versions").json()["results"]
    assert [(row["number"], row["version"]) for row in found] == [(3, "3"), (2, "summer"), (1, "1")]
    assert api("GET", "/workflows/w/versions?limit=1").json()["next"]
    for word, number in (("summer", 2), ("2", 2), ("1", 1), ("latest", 3)):
        assert api("GET", f"/workflows/w/versions/{word}").json()["number"] == number
    newest = api("GET", "/workflows/w/versions/latest").json()
    assert newest["definition"]["description"] == "about 3"
    missing = api("GET", "/workflows/w/versions/9")
    assert (missing.status_code, "3, summer, 1" in missing.json()["detail"]) == (404, True)


@pytest.mark.parametrize(
    "path",
    [
        f"/tasks/{NOBODY}/attempts",
        f"/tasks/{NOBODY}/events",
        f"/runs/{NOBODY}/events",
        f"/runs/{NOBODY}/graph",
        f"/runs/{NOBODY}/timeline",
        f"/runs/{NOBODY}/approvals",
        f"/sessions/{NOBODY}",
        "/agents/nobody/events",
        "/agents/nobody/sessions",
        "/workflows/nothing/versions",
        "/workflows/nothing/versions/1",
    ],
)
def test_what_is_not_there_is_404(api: Any, path: str) -> None:
    assert api("GET", path).status_code == 404


def test_another_project_sees_nothing_of_it(api: Any, run: Any, session_id: str) -> None:
    from opscore import keys

    other = Project.objects.create(slug="other")
    _, text = keys.create(other, "other", ["admin"])
    api.key = text
    for part in ("graph", "timeline", "events", "approvals"):
        assert api("GET", f"/runs/{run['id']}/{part}").status_code == 404
    assert api("GET", f"/sessions/{session_id}").status_code == 404
