"""Tasks, runs and workflows over REST."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.models import Run, Task
from tests.round_trips import round_trips

pytestmark = pytest.mark.django_db

DIAMOND = """
name: diamond
version: "1"
description: Adds up.
inputs:
  type: object
  properties: {n: {type: integer, default: 3}}
tasks:
  a: {capability: echo, with: {n: "${{ inputs.n }}"}}
  b: {capability: echo, needs: [a]}
  c: {capability: echo, needs: [a], priority: 8}
  d: {capability: echo, needs: [b, c], with: {x: "${{ tasks.b.result }}"}}
outputs:
  sum: ${{ tasks.d.result }}
"""


@pytest.fixture
def diamond(api: Any) -> dict[str, Any]:
    """An uploaded workflow of four tasks."""
    answer = api("POST", "/workflows", DIAMOND, Content_Type="application/yaml")
    assert answer.status_code == 201, answer.content
    uploaded: dict[str, Any] = answer.json()
    return uploaded


def test_submitted_task_shows_everything(api: Any) -> None:
    body = {
        "capability": "nobody",
        "inputs": {"n": 1},
        "priority": 9,
        "requires": ["gpu"],
        "retry": {"limit": 3},
        "timeout_s": 5,
        "key": "mine",
    }
    made = api("POST", "/api/v1/tasks", body)
    assert made.status_code == 201
    assert made["Location"] == f"/api/v1/tasks/{made.json()['id']}"
    shown = api("GET", made["Location"]).json()
    assert shown == made.json()
    assert shown["status"] == "queued"
    assert (shown["key"], shown["priority"], shown["requires"]) == ("mine", 9, ["gpu"])
    assert (shown["retry"]["limit"], shown["timeout_s"]) == (3, 5.0)
    assert (shown["agent"], shown["result"], shown["attempts"]) == (None, None, [])
    assert api("GET", f"/runs/{shown['run_id']}").json()["status"] == "running"
    assert api("GET", f"/tasks/{shown['id']}/logs").json() == {"results": [], "next": None}


def test_inputs_of_a_task_on_its_own_are_taken_as_they_are(api: Any, session_id: str) -> None:
    inputs = {"text": "${{ secrets.TOKEN }} and ${{ 1 + 1 }}", "n": {"deep": ["${{ inputs.x }}"]}}
    assert api("POST", "/tasks", {"capability": "echo", "inputs": inputs}).status_code == 201
    claimed = api("POST", f"/sessions/{session_id}/claim", {}).json()["tasks"]
    assert [task["inputs"] for task in claimed] == [inputs]


def test_cancel_of_a_task_ends_its_run(api: Any) -> None:
    task = api("POST", "/tasks", {"capability": "nobody"}).json()
    cancelled = api("PUT", f"/tasks/{task['id']}/cancel")
    assert cancelled.status_code == 200
    assert cancelled.json()["status"] == "cancelled"
    assert "test" in cancelled.json()["error"]["message"]


def test_workflow_is_uploaded_once_for_each_content(api: Any, diamond: dict[str, Any]) -> None:
    again = api("POST", "/workflows", DIAMOND, Content_Type="text/yaml")
    assert again.status_code == 200
    assert again.json() == {**diamond, "created": False}
    shown = api("GET", "/workflows/diamond").json()
    assert api("GET", f"/workflows/{diamond['id']}").json() == shown
    assert (shown["latest"], len(shown["versions"])) == ("1", 1)
    assert list(shown["definition"]["tasks"]) == ["a", "b", "c", "d"]
    changed = DIAMOND.replace("Adds up.", "Adds more.")
    assert api("POST", "/workflows", changed, Content_Type="application/yaml").status_code == 409
    assert [row["name"] for row in api("GET", "/workflows?name=dia").json()["results"]] == [
        "diamond"
    ]


def test_workflow_may_be_json(api: Any) -> None:
    body = {"name": "one", "tasks": {"a": {"capability": "echo"}}}
    assert api("POST", "/workflows/validate", body).json() == {
        "valid": True,
        "name": "one",
        "tasks": 1,
        "warnings": [
            {
                "message": "no agent offers `echo` at present",
                "path": "tasks.a.capability",
                "line": 1,
            }
        ],
    }
    assert api("GET", "/workflows/one").status_code == 404
    assert api("POST", "/workflows", body).status_code == 201


def test_run_shows_its_graph_in_topological_order(api: Any, diamond: dict[str, Any]) -> None:
    answer = api("POST", "/api/v1/workflows/diamond/execute", {"inputs": {"n": 7}, "priority": 2})
    assert answer.status_code == 201, answer.content
    run = answer.json()
    assert answer["Location"] == f"/api/v1/runs/{run['id']}"
    assert api("GET", f"/runs/{run['id']}").json() == run
    assert (run["workflow"], run["version"], run["status"]) == ("diamond", "1", "running")
    assert (run["inputs"], run["outputs"]) == ({"n": 7}, None)
    tasks = {task["key"]: task for task in run["tasks"]}
    keys = list(tasks)
    assert keys[0] == "a"
    assert keys[-1] == "d"
    assert sorted(keys) == ["a", "b", "c", "d"]
    assert sorted(tasks["a"]["successors"]) == ["b", "c"]
    assert sorted(tasks["d"]["needs"]) == ["b", "c"]
    assert (tasks["a"]["needs"], tasks["d"]["successors"]) == ([], [])
    assert (tasks["a"]["status"], tasks["d"]["status"]) == ("queued", "pending")
    assert (tasks["b"]["priority"], tasks["c"]["priority"]) == (2, 8)


def test_lists_of_runs_and_tasks_have_filters(api: Any, diamond: dict[str, Any]) -> None:
    run = api("POST", "/workflows/diamond/execute", {}).json()
    other = api("POST", "/tasks", {"capability": "other"}).json()

    def found(path: str) -> set[str]:
        return {row["id"] for row in api("GET", path).json()["results"]}

    ids = {task["id"] for task in run["tasks"]}
    assert found("/tasks") == ids | {other["id"]}
    assert found(f"/tasks?run={run['id']}") == ids
    assert found("/tasks?workflow=diamond&status=queued") == {run["tasks"][0]["id"]}
    assert found("/tasks?capability=other") == {other["id"]}
    assert found("/tasks?agent=nobody") == set()
    assert found("/runs?workflow=diamond") == {run["id"]}
    assert found("/runs?status=completed,failed") == set()
    assert len(found("/runs?status=running")) == 2


def test_a_list_costs_the_same_few_queries_for_any_number_of_rows(
    api: Any, session_id: str
) -> None:
    for _ in range(3):
        api("POST", "/tasks", {"capability": "echo"})
    api("POST", f"/sessions/{session_id}/claim", {"limit": 3})
    api("GET", "/tasks")
    # The key, the page, the agents of the page.
    with round_trips() as sent:
        rows = api("GET", "/tasks").json()["results"]
    assert len(sent) == 3
    assert [row["agent"]["name"] for row in rows] == ["echo-1"] * 3
    # The key, the page, sessions of the agents, their tasks.
    with round_trips() as sent:
        api("GET", "/agents")
    assert len(sent) == 4


def test_a_submit_is_four_statements_before_its_hint(api: Any) -> None:
    api("POST", "/tasks", {"capability": "echo"})
    with round_trips() as sent:
        api("POST", "/tasks", {"capability": "echo"})
    # The key, the rows, what they became, the audit log; a bucket of requests now and then.
    apart = ("SAVEPOINT", "opscore_ratebucket")
    assert len([one for one in sent if not any(word in one for word in apart)]) == 4


def test_cancel_of_a_run_ends_all_its_tasks(api: Any, diamond: dict[str, Any]) -> None:
    run = api("POST", "/workflows/diamond/execute", {}).json()
    cancelled = api("PUT", f"/runs/{run['id']}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert {task["status"] for task in cancelled["tasks"]} <= {"cancelled", "skipped"}
    assert Run.objects.get().status == "cancelled"
    assert not Task.objects.filter(status__in=["queued", "pending", "running"]).exists()
