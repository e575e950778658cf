"""The admin: its first page, its lists and pages, and what operators do there."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from agents.models import Agent, AgentSession
from opscore import admin_menu, logins, vault
from opscore.api.rates import Buckets
from opscore.audit import chain
from opscore.config import Rate
from opscore.models import Event, IdempotentAnswer, Membership, OidcIdentity, Project, Sign
from tasks import payloads
from tasks.bindings import Sticky, Turn
from tasks.models import Attempt, Pause, RateWindow, Run, Task, TaskLog
from tasks.reconcile import reconcile
from tests.api.conftest import act
from webhooks.models import Delivery, Try
from workflows.models import Workflow, WorkflowVersion

pytestmark = pytest.mark.django_db

OURS = ("opscore", "agents", "tasks", "webhooks", "workflows")


def test_every_model_of_ours_is_in_the_admin() -> None:
    for model in apps.get_models():
        if model._meta.app_label in OURS:
            assert admin.site.is_registered(model), model


def test_every_list_and_page_of_the_admin_opens(
    people: Client, api: Any, session_id: str, project: Project
) -> None:
    _fill(api, session_id, project)
    for model in apps.get_models():
        if model._meta.app_label not in OURS:
            continue
        base = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        listed = people.get(reverse(f"{base}_changelist"), {"q": "e"})
        assert listed.status_code == 200, model
        row = model._default_manager.first()
        assert row is not None, f"no {model.__name__} to look at"
        page = people.get(reverse(f"{base}_change", args=[row.pk]))
        assert page.status_code == 200, model


def test_every_page_of_the_admin_stands_in_its_menu(people: Client) -> None:
    menu = admin_menu.groups(people.get(reverse("admin:index")).wsgi_request)
    shown = [str(item["link"]) for group in menu for item in group["items"]]
    registered = [model._meta for model in admin.site._registry]
    pages = [reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist") for meta in registered]
    assert sorted(shown) == sorted([reverse("admin:index"), *pages])


def test_first_page_shows_what_runs_and_what_is_broken(
    people: Client, api: Any, session_id: str, project: Project
) -> None:
    empty = people.get(reverse("admin:index")).content.decode()
    assert "No run is live." in empty
    assert "Nothing waits for a decision." in empty
    ask = {"name": "ask", "tasks": {"ok": {"uses": "approval", "with": {"message": "Go <on>?"}}}}
    assert api("POST", "/workflows", ask).status_code == 201
    assert api("POST", "/workflows/ask/execute", {}).status_code == 201
    reconcile()
    _fill(api, session_id, project)
    Agent.objects.create(
        project=project, name="bad-1", kind="worker", status="error", reason="no luck\nline 2"
    )
    page = people.get(reverse("admin:index")).content.decode()
    assert "Go &lt;on&gt;?" in page
    assert "no luck" in page
    assert "line 2" not in page
    assert f"{reverse('admin:tasks_run_changelist')}?status__exact=running" in page
    with CaptureQueriesContext(connection) as queries:
        people.get(reverse("admin:index"))
    assert len(queries) < 25


def test_first_page_shows_nothing_to_people_without_rights(client: Client) -> None:
    User.objects.create_user("eve", password="wonderland", is_staff=True)
    assert client.login(username="eve", password="wonderland")
    page = client.get(reverse("admin:index"))
    assert page.status_code == 200
    assert "Runs" not in page.content.decode()


def test_page_of_a_task_says_why_it_waits(people: Client, api: Any) -> None:
    task = api("POST", "/tasks", {"capability": "nobody-has"}).json()
    page = people.get(reverse("admin:tasks_task_change", args=[task["id"]])).content.decode()
    assert "No agent" in page


def test_lists_of_the_admin_ask_no_more_for_more_rows(people: Client, project: Project) -> None:
    def asked() -> int:
        with CaptureQueriesContext(connection) as queries:
            page = people.get(reverse("admin:agents_agent_changelist"))
        names = list(Agent.objects.values_list("name", flat=True))
        assert page.content.decode().count(">active</span>") == len(names), names
        return len(queries)

    def add(name: str) -> None:
        Agent.objects.create(project=project, name=name, kind="remote", status="active")

    add("first")
    few = asked()
    for number in range(5):
        add(f"later-{number}")
    assert asked() == few


@pytest.mark.parametrize(
    "model", ["opscore_event", "opscore_idempotentanswer", "agents_agentsession"]
)
def test_filters_of_long_lists_do_not_read_all_rows(people: Client, model: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert people.get(reverse(f"admin:{model}_changelist")).status_code == 200
    asked = [query["sql"] for query in queries]
    assert not [sql for sql in asked if "DISTINCT" in sql and f'FROM "{model}"' in sql]


@pytest.mark.parametrize(
    ("chosen", "shown", "hidden"),
    [
        ("opscore_event_changelist?about=task", "task.lost", "agent.lost"),
        ("opscore_idempotentanswer_changelist?answered=4", "POST /refused", "POST /done"),
    ],
)
def test_filters_keep_what_was_chosen(
    people: Client, project: Project, chosen: str, shown: str, hidden: str
) -> None:
    for kind in ("task.lost", "agent.lost"):
        Event.objects.create(project=project, kind=kind)
    for target, status in (("POST /refused", 409), ("POST /done", 201)):
        IdempotentAnswer.objects.create(project=project, key="k", target=target, status=status)
    name, _, choice = chosen.partition("?")
    page = people.get(f"{reverse(f'admin:{name}')}?{choice}").content.decode()
    assert shown in page
    assert hidden not in page


def test_page_of_a_workflow_reads_the_latest_definition_only(
    people: Client, project: Project
) -> None:
    workflow = Workflow.objects.create(project=project, name="many")
    for number in range(1, 31):
        WorkflowVersion.objects.create(
            workflow=workflow, number=number, version=str(number), digest=str(number), definition={}
        )
    with CaptureQueriesContext(connection) as queries:
        page = people.get(reverse("admin:workflows_workflow_change", args=[workflow.pk]))
    assert page.status_code == 200
    read = [query["sql"] for query in queries if '"definition"' in query["sql"]]
    assert read
    assert all(sql.endswith("LIMIT 1") for sql in read)


def test_rows_of_the_engine_cannot_be_changed_by_hand(people: Client, api: Any) -> None:
    task = api("POST", "/tasks", {"capability": "nobody"}).json()
    page = reverse("admin:tasks_task_change", args=[task["id"]])
    assert people.post(page, {"status": "completed"}).status_code == 403
    assert people.post(reverse("admin:tasks_task_delete", args=[task["id"]])).status_code == 403
    assert people.get(reverse("admin:tasks_task_add")).status_code == 403
    assert Task.objects.get().status == "queued"


def test_operator_cancels_runs_and_tasks(people: Client, api: Any) -> None:
    first, second = (api("POST", "/tasks", {"capability": "nobody"}).json() for _ in range(2))
    act(people, "tasks_task", "cancel", first["id"])
    act(people, "tasks_run", "cancel", second["run_id"])
    assert set(Task.objects.values_list("status", flat=True)) == {"cancelled"}
    again = act(people, "tasks_task", "cancel", first["id"])
    assert "cancelled already" in again.content.decode()
    assert "alice" in str(Task.objects.get(pk=first["id"]).error)


@pytest.mark.django_db(transaction=True)
def test_operator_pauses_resumes_approves_and_runs_again(people: Client, api: Any) -> None:
    text = "name: ask\ntasks: {ok: {uses: approval}, no: {uses: approval}}"
    assert api("POST", "/workflows", text, Content_Type="application/yaml").status_code == 201
    run = Run.objects.get(pk=api("POST", "/workflows/ask/execute", {}).json()["id"])
    act(people, "tasks_run", "pause", str(run.pk))
    assert Run.objects.get().status == "paused"
    act(people, "tasks_run", "resume", str(run.pk))
    act(people, "tasks_task", "approve", str(run.tasks.get(key="ok").pk))
    act(people, "tasks_task", "reject", str(run.tasks.get(key="no").pk))
    run.refresh_from_db()
    assert run.status == "failed"
    act(people, "tasks_run", "rerun", str(run.pk))
    again = Run.objects.get(rerun_of=run.pk)
    assert (again.tasks.get(key="ok").result or {})["by"] == "alice"
    act(people, "tasks_run", "cancel_at_once", str(again.pk))
    api("POST", "/pauses", {"workflow": "ask"})
    act(people, "tasks_pause", "resume", str(Pause.objects.get().pk))
    assert not Pause.objects.exists()


def test_operator_stops_agents_and_is_told_what_cannot_be(
    people: Client, agent: dict[str, Any]
) -> None:
    refused = act(people, "agents_agent", "restart", agent["id"])
    said = [str(message) for message in refused.context["messages"]]
    assert len(said) == 1
    assert "restart it where it runs" in said[0]
    act(people, "agents_agent", "stop", agent["id"])
    assert Agent.objects.get().status == "terminated"
    assert Event.objects.filter(actor="alice").exists()


def _fill(api: Any, session_id: str, project: Project) -> None:
    tasks = {"a": {"capability": "echo"}, "b": {"capability": "echo", "requires": ["gpu"]}}
    definition = {"name": "seen", "tasks": tasks}
    assert api("POST", "/workflows", definition, Idempotency_Key="k").status_code == 201
    assert api("POST", "/workflows/seen/execute", {}).status_code == 201
    [task] = api("POST", f"/sessions/{session_id}/claim", {}).json()["tasks"]
    lines = {"fence": task["fence"], "lines": ["working <b>hard</b>"]}
    api("POST", f"/tasks/{task['id']}/logs", lines)
    told = {"fence": task["fence"], "fraction": 0.5, "message": "half"}
    assert api("POST", f"/tasks/{task['id']}/progress", told).status_code == 204
    error = {"type": "oops", "message": "no luck"}
    report = {"fence": task["fence"], "status": "failed", "error": error}
    assert api("POST", f"/tasks/{task['id']}/report", report).status_code == 204
    payloads.save(project.pk, '{"large": true}')
    run_id = task["run_id"]
    schedule = {"name": "s", "workflow": "seen", "every_s": 60}
    assert api("POST", "/schedules", schedule).status_code == 201
    assert api("POST", "/schedules/s/trigger").status_code == 201
    assert api("POST", f"/runs/{run_id}/signals/hello", {"a": 1}).status_code == 201
    assert api("PUT", f"/runs/{run_id}/context/plan", {"value": ["a"]}).status_code == 201
    for to in ({"agent": "echo-1"}, {"capability": "echo"}):
        sent = api("POST", f"/runs/{run_id}/messages", {"to": to, "topic": "hello"})
        assert sent.status_code == 201
    http = {"name": "ann", "kind": "http", "url": "http://agent.invalid/work"}
    assert api("POST", "/agents", http).status_code == 201
    assert api("POST", "/pauses", {}).status_code == 201
    _fill_ground(api, project)
    _fill_routing(api)
    _fill_agents(session_id, project)
    assert Attempt.objects.exists()
    assert TaskLog.objects.exists()
    assert AgentSession.objects.exists()


def _fill_ground(api: Any, project: Project) -> None:
    Buckets().take("1 0", Rate(6000, 60))
    Membership.objects.create(user=User.objects.get(), project=project)
    OidcIdentity.objects.create(user=User.objects.get(), issuer="https://id", subject="1")
    Sign.objects.create(name=Sign.BEAT)
    logins.begin("bob", "10.0.0.1")
    assert api("PUT", "/secrets/TOKEN", {"value": "wonderland"}).status_code == 201
    _fill_webhooks(api)
    vault.put(project, "TOKEN", "wonderland too")
    chain.seal()
    RateWindow.objects.create(project=project, key="k")


def _fill_routing(api: Any) -> None:
    agent = Agent.objects.get(name="echo-1")
    Sticky.objects.create(project=agent.project, queue="default.echo", key="a", agent=agent)
    Turn.objects.create(agent=agent, capability="echo")
    assert api("PUT", "/capabilities/echo/route", {"strategy": "fastest"}).status_code == 200
    opened = api("POST", "/breakers/resource/openai/open", {"reason": "it is down"})
    assert opened.status_code == 200


def _fill_webhooks(api: Any) -> None:
    wish = {"name": "chat", "url": "http://hooks.invalid/"}
    assert api("POST", "/webhooks", wish).status_code == 201
    assert api("POST", "/webhooks/chat/test").status_code == 202
    Try.objects.create(delivery=Delivery.objects.latest("id"), duration_ms=1)


def _fill_agents(session_id: str, project: Project) -> None:
    from agents import output, pools, usage
    from agents.models import Host

    host = Host.objects.create(project=project, name="here", specs={"a": {"kind": "worker"}})
    pools.scale(host, "a", 2)
    agent_id = AgentSession.objects.get(pk=session_id).agent_id
    usage.write({agent_id: usage.Usage(2**20, 3.0)})
    output.write({agent_id: "a <b>line</b>"})
