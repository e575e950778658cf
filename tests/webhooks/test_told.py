"""What is told to whom: written in the transaction of what happened, and by nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.db import connection, transaction

from opscore.config import ROOT
from opscore.database import query
from opscore.models import Event, Project
from tasks.models import Run, Task
from tests.api.conftest import api, make_api
from tests.engine.conftest import Bench, bench
from tests.webhooks.conftest import MakeHook
from webhooks import hooks, kinds
from webhooks.models import Delivery

__all__ = ["api", "bench", "make_api"]

pytestmark = pytest.mark.django_db(transaction=True)

FLOW = {
    "name": "flow",
    "tasks": {"a": {"capability": "work"}, "b": {"capability": "other", "needs": "a"}},
}


def ran(bench: Bench, flow: Any) -> Run:
    return bench.finish(bench.start(json.dumps(flow)))


def told(name: str = "") -> list[str]:
    found = Delivery.objects.filter(webhook__name__contains=name).order_by("id")
    return [delivery.event for delivery in found]


def one(event: str) -> dict[str, Any]:
    [delivery] = Delivery.objects.filter(event=event)
    data: dict[str, Any] = delivery.payload["data"]
    return data


def test_a_run_tells_of_its_tasks_and_its_end(bench: Bench, make_hook: MakeHook) -> None:
    make_hook("all", "run.*", "task.*")
    bench.does("other", lambda task: {"done": True})
    run = ran(bench, FLOW)
    assert run.status == "completed"
    assert told() == ["task.completed", "task.completed", "run.completed"]
    for model in (Run, Task):  # written again as it is, it has not ended again
        model.objects.update(status="completed")
    assert len(told()) == 3
    data = one("run.completed")
    assert (data["run"]["id"], data["run"]["workflow"]) == (str(run.id), "flow")
    assert (data["run"]["status"], data["project"], data["task"]) == ("completed", "default", None)
    assert data["run"]["completed_at"].endswith("+00:00")


def test_failures_say_why_and_who(bench: Bench, make_hook: MakeHook) -> None:
    make_hook("bad", "run.failed", "task.failed")

    def break_down(task: Any) -> Any:
        raise RuntimeError("no luck")

    bench.does("other", break_down)
    run = ran(bench, FLOW)
    assert (run.status, told()) == ("failed", ["task.failed", "run.failed"])
    data = one("task.failed")
    assert (data["task"]["key"], data["task"]["capability"]) == ("b", "other")
    assert data["run"]["id"] == str(run.id)
    assert "no luck" in data["details"]["message"]
    assert one("run.failed")["details"]["task"] == "b"


def test_approvals_and_cancelled_runs_are_told_once(api: Any, make_hook: MakeHook) -> None:
    make_hook("all", "run.*", "approval.*", "task.*")
    gate = {"name": "gate", "tasks": {"ok": {"uses": "approval", "with": {"message": "Ship?"}}}}
    assert api("POST", "/workflows", gate).status_code == 201
    run = api("POST", "/workflows/gate/execute", {}).json()
    assert told() == ["approval.requested"]
    assert one("approval.requested")["details"]["message"] == "Ship?"
    assert api("PUT", f"/runs/{run['id']}/cancel", {"force": True}).status_code == 200
    assert told() == ["approval.requested", "run.cancelled"]


def test_only_what_is_wanted_is_kept(project: Project, make_hook: MakeHook) -> None:
    make_hook("agents", "agent.*")
    make_hook("losses", "task.lost", "run.completed")
    make_hook("everything")
    make_hook("off", enabled=False)
    _, flow = make_hook("flow", "*", workflow="flow")
    Delivery.objects.all().delete()
    for kind in ("agent.lost", "task.lost", "task.lostXnot", "agents.x"):
        Event.objects.create(project=project, kind=kind)
    Event.objects.create(project=Project.objects.create(slug="other"), kind="agent.lost")
    assert told("agents") == ["agent.lost"]
    assert told("losses") == ["task.lost"]
    assert told("everything") == ["agent.lost", "task.lost", "task.lostXnot", "agents.x"]
    assert told("off") == told("flow") == []
    assert flow.workflow == "flow"


def test_a_line_under_a_pattern_is_a_letter(project: Project, make_hook: MakeHook) -> None:
    make_hook("exact", "agent.secret_changed")
    Event.objects.create(project=project, kind="agent.secretXchanged")
    assert told("exact") == []
    Event.objects.create(project=project, kind="agent.secret_changed")
    assert told("exact") == ["agent.secret_changed"]


def test_a_workflow_alone_is_told_of(bench: Bench, make_hook: MakeHook) -> None:
    make_hook("mine", "run.*", workflow="flow")
    make_hook("theirs", "run.*", workflow="another")
    ran(bench, FLOW)
    assert (told("mine"), told("theirs")) == (["run.failed"], [])


@pytest.mark.django_db(transaction=True)
def test_what_does_not_commit_is_not_told(project: Project, make_hook: MakeHook) -> None:
    make_hook("all")
    Delivery.objects.all().delete()

    def fail_late() -> None:
        with transaction.atomic():
            Event.objects.create(project=project, kind="agent.lost")
            assert Delivery.objects.count() == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_late()
    assert not Delivery.objects.exists()


def test_large_details_are_left_out(project: Project, make_hook: MakeHook) -> None:
    make_hook("all", "agent.*")
    Event.objects.create(project=project, kind="agent.lost", data={"text": "x" * 20_000})
    assert one("agent.lost")["details"] == {"truncated": True}


def test_a_new_webhook_is_not_told_of_itself(project: Project, make_hook: MakeHook) -> None:
    make_hook("first")
    make_hook("second")
    assert told("second") == []
    assert told("first") == ["webhook.created"]
    hooks.delete(project, "second")
    assert told("first") == ["webhook.created", "webhook.deleted"]


def test_submitting_meets_no_trigger() -> None:
    """`POST /tasks` inserts runs and tasks: no trigger of ours is on that."""
    rows = query(
        "SELECT event_object_table AS name, event_manipulation AS verb"
        " FROM information_schema.triggers WHERE trigger_name LIKE 'webhooks%%' AND %(x)s",
        {"x": True},
    )
    assert {(row["name"], row["verb"]) for row in rows} == {
        ("opscore_event", "INSERT"),
        ("tasks_run", "UPDATE"),
        ("tasks_task", "UPDATE"),
    }


def test_without_a_webhook_nothing_is_written(bench: Bench, project: Project) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT last_value, is_called FROM webhooks_delivery_id_seq")
        before = cursor.fetchone()
        ran(bench, {"name": "small", "tasks": {"a": {"capability": "work"}}})
        cursor.execute("SELECT last_value, is_called FROM webhooks_delivery_id_seq")
        assert cursor.fetchone() == before


def test_every_kind_of_event_belongs_to_a_known_area() -> None:
    """Else nobody could ask for it."""
    kind = re.compile(
        r"""kind="([a-z]+)\.|note\([^)\n]*"([a-z]+)\.[a-z_]+"|SELECT [^;]*?'([a-z]+)\.[a-z]*'"""
    )
    found = {
        "".join(words)
        for folder in ("opscore", "agents", "tasks", "workflows")
        for path in (ROOT / folder).rglob("*.py")
        for words in kind.findall(path.read_text())
    }
    assert found >= {"agent", "breaker", "message", "run", "secret", "task", "write"}
    # What is noted of logins stands in the audit log.
    assert found - {"login"} <= set(kinds.AREAS)
