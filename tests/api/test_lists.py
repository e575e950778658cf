"""Lists: order, pages in each order, sparse fields, filters, and what they cost."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from opscore.models import Project
from tasks.models import Run, Task
from tests.round_trips import round_trips

pytestmark = pytest.mark.django_db


def pages(api: Any, path: str) -> list[dict[str, Any]]:
    """Return the rows of all pages."""
    rows: list[dict[str, Any]] = []
    while path:
        page = api("GET", path).json()
        rows += page["results"]
        path = page["next"]
    return rows


@pytest.fixture
def agents(api: Any) -> list[str]:
    """Seven agents whose names are not in the order of their registration."""
    names = ["d", "a", "g", "c", "f", "b", "e"]
    for name in names:
        body = {"name": name, "kind": "remote", "capabilities": ["x"], "labels": [f"l{name}"]}
        assert api("POST", "/agents", body).status_code == 201
    return names


@pytest.mark.parametrize(
    ("ordering", "expected"),
    [
        ("", "ebfcgad"),
        ("ordering=-created_at", "ebfcgad"),
        ("ordering=created_at", "dagcfbe"),
        ("ordering=name", "abcdefg"),
        ("ordering=-name", "gfedcba"),
    ],
)
def test_pages_follow_each_order(api: Any, agents: list[str], ordering: str, expected: str) -> None:
    shown = pages(api, f"/agents?limit=2&{ordering}")
    assert "".join(row["name"] for row in shown) == expected


def test_rows_that_come_and_go_between_pages_shift_nothing(api: Any, agents: list[str]) -> None:
    first = api("GET", "/agents?limit=3&ordering=name").json()
    assert [row["name"] for row in first["results"]] == ["a", "b", "c"]
    from agents.models import Agent

    # The very row behind which the next page begins is gone, and another one stands before it.
    Agent.objects.filter(name="c").delete()
    api("POST", "/agents", {"name": "aa", "kind": "remote", "capabilities": ["x"]})
    rest = pages(api, first["next"])
    assert [row["name"] for row in rest] == ["d", "e", "f", "g"]


@pytest.mark.parametrize(
    "path", ["/tasks?ordering=priority", "/agents?ordering=", "/runs?ordering=--x"]
)
def test_orders_without_an_index_are_refused(api: Any, path: str) -> None:
    answer = api("GET", path)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "ordering")
    assert "created_at" in answer.json()["errors"][0]["message"]


def test_only_the_fields_that_are_asked_for(api: Any) -> None:
    task = api("POST", "/tasks", {"capability": "x"}).json()
    assert api("GET", "/tasks?fields=id,status").json()["results"] == [
        {"id": task["id"], "status": "queued"}
    ]
    assert api("GET", f"/tasks/{task['id']}?fields=status").json() == {"status": "queued"}
    assert set(api("GET", f"/runs/{task['run_id']}?fields=tasks,id").json()) == {"tasks", "id"}
    for path in ("/tasks?fields=id,staus", f"/tasks/{task['id']}?fields=staus"):
        wrong = api("GET", path)
        assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (400, "fields")
        assert "did you mean 'status'?" in wrong.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/tasks/{id}?feilds=id", "did you mean 'fields'?"),
        ("HEAD", "/tasks/{id}?feilds=id", ""),
        ("GET", "/tasks/{id}?wait=1&wait=2", "stands more than once"),
        ("GET", "/tasks/{id}/stream?fields=id", "none is known here"),
        ("POST", "/tasks?wiat=30", "did you mean 'wait'?"),
        ("PUT", "/tasks/{id}/cancel?force=1", "none is known here"),
        ("GET", "/runs/{run_id}/graph?fromat=mermaid", "did you mean 'format'?"),
    ],
)
def test_a_word_that_is_not_understood_is_refused(
    api: Any, method: str, path: str, said: str
) -> None:
    task = api("POST", "/tasks", {"capability": "x"}).json()
    answer = api(method, path.format(**task), {} if method == "POST" else None)
    assert answer.status_code == 400
    if said:
        assert said in answer.json()["errors"][0]["message"]
    assert api("GET", f"/tasks/{task['id']}").json()["status"] == "queued"


def test_probes_may_carry_anything(api: Any) -> None:
    assert api("GET", "/health?_=17").status_code == 200


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("name=A", {"a"}),
        ("label=lc", {"c"}),
        ("paused=true", {"d"}),
        ("host=nowhere", set()),
    ],
)
def test_filters_of_agents(api: Any, agents: list[str], query: str, names: set[str]) -> None:
    api("POST", "/agents/d/pause")
    assert {row["name"] for row in pages(api, f"/agents?{query}")} == names


def test_filters_of_tasks_and_runs(api: Any) -> None:
    old = api("POST", "/tasks", {"capability": "x", "key": "old"}).json()
    new = api("POST", "/tasks", {"capability": "x", "key": "new", "fairness_key": "ada"}).json()
    Task.objects.filter(pk=old["id"]).update(created_at="2026-01-01T00:00:00Z")

    def found(path: str) -> list[str]:
        return [row["id"] for row in pages(api, path)]

    assert found("/tasks?key=old") == [old["id"]]
    assert found("/tasks?uses=agent") == [new["id"], old["id"]]
    assert found("/tasks?uses=approval") == []
    assert found("/tasks?created_since=2026-02-01T00:00:00Z") == [new["id"]]
    assert found("/tasks?created_until=2026-02-01T00:00:00Z") == []
    assert found("/tasks?created_until=2999-02-01T00:00:00Z&key=new") == [new["id"]]
    assert found("/runs?fairness_key=ada") == [new["run_id"]]
    assert found(f"/runs?rerun_of={old['run_id']}") == []
    for odd in (
        "0001-01-01T00:00:00%2B14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-01-01T00:00%2B18:07",
    ):
        assert api("GET", f"/tasks?created_until={odd}").status_code == 200
    assert api("GET", "/tasks?created_since=yesterday").status_code == 400
    assert api("GET", "/events?actor=nobody").json()["results"] == []


def test_filters_of_sessions_and_approvals(api: Any, session_id: str) -> None:
    second = api("POST", "/agents/echo-1/sessions", {}).json()["session_id"]
    path = "/agents/echo-1/sessions"
    assert [row["id"] for row in pages(api, f"{path}?live=true")] == [second]
    assert [row["id"] for row in pages(api, f"{path}?live=false")] == [session_id]
    assert api("GET", "/approvals?workflow=pay").json()["results"] == []


@pytest.mark.parametrize("path", ["/tasks", "/runs", "/agents", "/events", "/workflows"])
def test_more_rows_cost_no_more_statements(api: Any, project: Project, path: str) -> None:
    def asked(limit: int) -> int:
        with round_trips() as sent:
            page = api("GET", f"{path}?limit={limit}").json()
        assert len(page["results"]) == limit
        return len(sent)

    api("POST", "/tasks/bulk", {"tasks": [{"capability": "x"}] * 30})
    for number in range(30):
        body = {"name": f"a{number}", "kind": "remote", "capabilities": ["x"]}
        api("POST", "/agents", body)
        api("POST", "/workflows", {"name": f"w{number}", "tasks": {"a": {"capability": "x"}}})
    assert asked(30) == asked(2) <= 5


@pytest.mark.parametrize(
    "path",
    [
        "/tasks",
        "/tasks?ordering=created_at",
        "/runs?workflow=w",
        "/events",
        "/agents?ordering=name",
    ],
)
def test_every_order_is_that_of_an_index(api: Any, path: str) -> None:
    """Told not to sort where it need not, PostgreSQL does not sort."""
    api("POST", "/tasks/bulk", {"tasks": [{"capability": "x"}] * 5})
    with CaptureQueriesContext(connection) as sent:
        api("GET", f"{path}{'&' if '?' in path else '?'}limit=3")
    asked = [query["sql"] for query in sent]
    [statement] = [sql for sql in asked if "ORDER BY" in sql and "LIMIT 4" in sql]
    with connection.cursor() as cursor:
        for way in ("seqscan", "bitmapscan", "sort", "incremental_sort"):
            cursor.execute(f"SET LOCAL enable_{way} = off")
        cursor.execute(f"EXPLAIN {statement}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Index" in plan, plan
    assert "Sort" not in plan, plan


def test_a_page_of_another_project_is_empty(api: Any) -> None:
    other = Project.objects.create(slug="other")
    Run.objects.create(project=other)
    assert pages(api, "/runs") == []
