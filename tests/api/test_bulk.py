"""Many tasks in one call: all or none, in order, in few statements."""

from __future__ import annotations

from typing import Any

import pytest

from opscore.errors import InvalidError
from opscore.models import Project
from tasks.graph import Node
from tasks.models import Run, Task
from tasks.submission import Single, submit_tasks
from tests.round_trips import round_trips

pytestmark = pytest.mark.django_db


def test_all_tasks_are_submitted_in_order(api: Any) -> None:
    wanted = [
        {"capability": "nobody", "key": f"k{number}", "inputs": {"n": number}, "priority": 9}
        for number in range(120)
    ]
    answer = api("POST", "/tasks/bulk", {"tasks": wanted})
    assert answer.status_code == 201
    made = answer.json()["tasks"]
    assert [task["key"] for task in made] == [task["key"] for task in wanted]
    rows = Task.objects.order_by("id").select_related("run")
    assert [(row.key, row.inputs["n"], row.priority) for row in rows] == [
        (f"k{number}", number, 9) for number in range(120)
    ]
    assert [(str(row.id), str(row.run_id)) for row in rows] == [
        (task["id"], task["run_id"]) for task in made
    ]
    shown = api("GET", f"/tasks/{made[7]['id']}").json()
    alone = api("POST", "/tasks", wanted[7]).json()
    own = {"id", "run_id", "created_at", "ready_at"}
    assert {name: value for name, value in shown.items() if name not in own} == {
        name: value for name, value in alone.items() if name not in own
    }


def test_one_wrong_task_refuses_all_and_is_named(api: Any) -> None:
    wanted: list[Any] = [{"capability": "nobody"} for _ in range(5)]
    wanted[1] = {"capabilty": "nobody"}
    wanted[3]["retry"] = {"limit": -1}
    wanted[4] = "text"
    answer = api("POST", "/tasks/bulk", {"tasks": wanted})
    assert answer.status_code == 400
    paths = {wrong["path"] for wrong in answer.json()["errors"]}
    assert {"tasks[1].capability", "tasks[1].capabilty", "tasks[3].retry.limit"} < paths
    assert any(path.startswith("tasks[4]") for path in paths)
    assert not Task.objects.exists()
    assert not Run.objects.exists()


@pytest.mark.parametrize("tasks", [[], [{"capability": "x"}] * 1001, {}, None, "x"])
def test_none_and_too_many_are_refused(api: Any, tasks: Any) -> None:
    answer = api("POST", "/tasks/bulk", {"tasks": tasks})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"].startswith("tasks")
    assert not Task.objects.exists()


def test_a_list_of_errors_has_an_end(api: Any) -> None:
    answer = api("POST", "/tasks/bulk", {"tasks": [{"priority": 99}] * 1000})
    errors = answer.json()["errors"]
    assert len(errors) == 101
    assert "1900 more" in errors[-1]["message"]


def test_bulk_is_done_once_for_an_idempotency_key(api: Any) -> None:
    body = {"tasks": [{"capability": "nobody"}] * 3}
    first = api("POST", "/tasks/bulk", body, Idempotency_Key="a")
    again = api("POST", "/tasks/bulk", body, Idempotency_Key="a")
    assert again.json() == first.json()
    assert again["Idempotency-Replayed"] == "true"
    assert Task.objects.count() == 3


def test_agents_get_them_in_order(api: Any, session_id: str) -> None:
    made = api("POST", "/tasks/bulk", {"tasks": [{"capability": "echo"}] * 30}).json()["tasks"]
    claim = f"/sessions/{session_id}/claim"
    got = [api("POST", claim, {}).json()["tasks"][0]["id"] for _ in range(30)]
    assert got == [task["id"] for task in made]


def test_a_thousand_cost_no_more_statements_than_ten(project: Project) -> None:
    def asked(count: int) -> int:
        with round_trips() as sent:
            submit_tasks(project, [Single(Node(key="x", capability="nobody"))] * count)
        return len(sent)

    assert asked(1000) == asked(10) < 20


def test_python_names_the_wrong_one_too(project: Project) -> None:
    node = Node(key="x", capability="nobody")
    with pytest.raises(InvalidError) as caught:
        submit_tasks(project, [Single(node), Single(node, priority=10)])
    assert [problem.path for problem in caught.value.problems] == ["tasks[1].priority"]
    assert not Task.objects.exists()
    assert submit_tasks(project, []) == []
