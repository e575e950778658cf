"""Health, the API's document, static files and the admin."""

from __future__ import annotations

import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from agents.models import Agent, AgentSession
from opscore import keys
from opscore.config import ROOT, load_config
from opscore.database import query
from opscore.models import ApiKey, Event, IdempotentAnswer, Project
from tasks import payloads
from tasks.models import Attempt, Pause, RateWindow, Run, Task, TaskLog
from tests.live_server import Server
from workflows.models import Workflow, WorkflowVersion

pytestmark = pytest.mark.django_db

OURS = ("opscore", "agents", "tasks", "workflows")


@pytest.fixture
def people(project: Project) -> Client:
    """A browser with an operator logged in."""
    User.objects.create_superuser("alice", "alice@example.org", "wonderland")
    browser = Client()
    assert browser.login(username="alice", password="wonderland")
    return browser


def test_health_names_the_parts_and_needs_no_key(client: Client) -> None:
    for path in ("/health", "/api/v1/ready"):
        answer = client.get(path)
        assert answer.status_code == 200
        body = answer.json()
        assert body["status"] == "ok"
        assert body["version"]
        assert {name: part["status"] for name, part in body["components"].items()} == {
            "database": "ok",
            "broker": "ok",
        }


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "redis+socket:///nowhere.sock", "amqp://x.invalid//"]
)
def test_a_broker_that_is_away_makes_it_degraded_but_never_an_error(
    client: Client, settings: Any, url: str
) -> None:
    settings.CELERY_BROKER_URL = url
    health, ready = client.get("/health"), client.get("/ready")
    assert (health.status_code, ready.status_code) == (200, 503)
    assert health.json()["status"] == "degraded"
    assert health.json()["components"]["broker"]["status"] == "down"
    assert "127.0.0.1" not in health.content.decode()


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_a_broker_behind_tls_is_asked_in_tls(client: Client, settings: Any, scheme: str) -> None:
    first = ThreadPoolExecutor(1)
    with socket.create_server(("127.0.0.1", 0)) as broker, first:
        settings.CELERY_BROKER_URL = f"{scheme}://127.0.0.1:{broker.getsockname()[1]}"

        def hear() -> bytes:
            asker, _ = broker.accept()
            with asker:
                return asker.recv(1)

        heard = first.submit(hear)
        assert client.get("/ready").status_code == 503
        assert heard.result(5) == b"\x16", "no handshake"


def test_services_that_say_nothing_are_down_after_two_seconds(
    client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        settings.CELERY_BROKER_URL = f"redis://{address}"
        monkeypatch.setattr(load_config(), "database_url", f"postgresql://{address}/x")
        began = time.monotonic()
        parts = client.get("/health").json()["components"]
    assert {part["status"] for part in parts.values()} == {"down"}
    assert time.monotonic() - began < 3


def test_a_database_that_is_away_makes_it_degraded(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_config(), "database_url", "postgresql://127.0.0.1:1/x")
    assert client.get("/health").json()["components"]["database"]["status"] == "down"


def test_document_is_complete_and_the_one_in_docs(tmp_path: Path) -> None:
    made = tmp_path / "openapi.yaml"
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(made))
    written = ROOT / "docs" / "openapi.yaml"
    assert made.read_text() == written.read_text(), (
        "run: python manage.py spectacular --file docs/openapi.yaml"
    )


def test_document_says_what_bodies_and_lists_take() -> None:
    document = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())
    submit = document["components"]["schemas"]["Submit"]
    assert submit["additionalProperties"] is False
    assert re.fullmatch(submit["properties"]["capability"]["pattern"], "a")
    assert not re.search(submit["properties"]["capability"]["pattern"], " \t\x1f")
    assert "additionalProperties" not in document["components"]["schemas"]["TaskDetail"]
    parameters = {
        (path, parameter["name"]): parameter["schema"]
        for path, methods in document["paths"].items()
        for operation in methods.values()
        for parameter in operation.get("parameters", [])
    }
    assert parameters["/api/v1/tasks", "after"] == {"type": "string", "format": "uuid"}
    assert parameters["/api/v1/events", "after"] == {"type": "integer"}
    assert "waiting" in parameters["/api/v1/tasks", "status"]["items"]["enum"]
    assert re.fullmatch(parameters["/api/v1/tasks", "Idempotency-Key"]["pattern"], "a-1")


def test_document_and_its_page_are_served_without_key_and_from_here(client: Client) -> None:
    assert b"openapi: 3" in client.get("/api/v1/schema").content
    page = client.get("/api/v1/docs")
    assert page["Content-Type"].startswith("text/html")
    assert b"swagger-ui" in page.content
    assert b"https://" not in page.content
    assert client.post("/api/v1/docs").status_code == 405


def test_static_files_come_without_debug_and_are_cached(client: Client) -> None:
    path = "/static/unfold/css/styles.css"
    first = client.get(path)
    assert first.status_code == 200
    assert first["Content-Type"].startswith("text/css")
    again = client.get(path, headers={"If-Modified-Since": first["Last-Modified"]})
    assert (again.status_code, again.content) == (304, b"")
    for bad in ("/static/nothing.css", "/static/unfold", "/static/../opscore/settings.py"):
        assert client.get(bad).status_code == 404
    assert client.post(path).status_code in {403, 404}


def test_root_leads_to_the_admin_and_the_admin_to_its_login(client: Client) -> None:
    assert client.get("/")["Location"] == "/admin/"
    assert "/admin/login/" in client.get("/admin/")["Location"]


@pytest.mark.django_db(transaction=True)
def test_pages_leave_no_connection_behind(server: Server) -> None:
    def see() -> int:
        # Any session makes Django look it up.
        page = httpx.get(f"{server.url}/admin/login/", headers={"Cookie": f"sessionid={'x' * 32}"})
        assert page.status_code == 200
        sql = "SELECT count(*) AS open FROM pg_stat_activity WHERE datname = current_database()"
        return int(query(sql, {})[0]["open"])

    before = see()
    assert max(see() for _ in range(10)) <= before + 1


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


def test_lists_of_the_admin_ask_no_more_for_more_rows(people: Client, project: Project) -> None:
    def asked() -> int:
        with CaptureQueriesContext(connection) as queries:
            page = people.get(reverse("admin:agents_agent_changelist"))
        assert page.content.decode().count(">active</span>") == Agent.objects.count()
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
    _act(people, "tasks_task", "cancel", first["id"])
    _act(people, "tasks_run", "cancel", second["run_id"])
    assert set(Task.objects.values_list("status", flat=True)) == {"cancelled"}
    again = _act(people, "tasks_task", "cancel", first["id"])
    assert "cancelled already" in again.content.decode()
    assert "alice" in str(Task.objects.get(pk=first["id"]).error)


@pytest.mark.django_db(transaction=True)
def test_operator_pauses_resumes_approves_and_runs_again(people: Client, api: Any) -> None:
    text = "name: ask\ntasks: {ok: {uses: approval}, no: {uses: approval}}"
    assert api("POST", "/workflows", text, Content_Type="application/yaml").status_code == 201
    run = Run.objects.get(pk=api("POST", "/workflows/ask/execute", {}).json()["id"])
    _act(people, "tasks_run", "pause", str(run.pk))
    assert Run.objects.get().status == "paused"
    _act(people, "tasks_run", "resume", str(run.pk))
    _act(people, "tasks_task", "approve", str(run.tasks.get(key="ok").pk))
    _act(people, "tasks_task", "reject", str(run.tasks.get(key="no").pk))
    run.refresh_from_db()
    assert run.status == "failed"
    _act(people, "tasks_run", "rerun", str(run.pk))
    again = Run.objects.get(rerun_of=run.pk)
    assert (again.tasks.get(key="ok").result or {})["by"] == "alice"
    _act(people, "tasks_run", "cancel_at_once", str(again.pk))
    api("POST", "/pauses", {"workflow": "ask"})
    _act(people, "tasks_pause", "resume", str(Pause.objects.get().pk))
    assert not Pause.objects.exists()


def test_operator_stops_agents_and_is_told_what_cannot_be(
    people: Client, agent: dict[str, Any]
) -> None:
    refused = _act(people, "agents_agent", "restart", agent["id"])
    said = [str(message) for message in refused.context["messages"]]
    assert len(said) == 1
    assert "restart it where it runs" in said[0]
    _act(people, "agents_agent", "stop", agent["id"])
    assert Agent.objects.get().status == "terminated"
    assert Event.objects.filter(actor="alice").exists()


def test_a_key_made_in_the_admin_is_shown_once_and_works(people: Client, project: Project) -> None:
    form = {"project": project.pk, "name": "made here", "scopes": ["read"]}
    made = people.post(reverse("admin:opscore_apikey_add"), form, follow=True)
    text = made.content.decode().split("<code>")[1].split("</code>")[0]
    key = keys.verify(text)
    assert (key.name, key.scopes) == ("made here", ["read"])
    page = people.get(reverse("admin:opscore_apikey_change", args=[key.pk]))
    assert text not in page.content.decode()
    assert text not in people.get(reverse("admin:opscore_apikey_changelist")).content.decode()
    _act(people, "opscore_apikey", "revoke", str(key.pk))
    assert ApiKey.objects.get(pk=key.pk).revoked_at is not None


def test_a_key_without_scope_is_not_made(people: Client, project: Project) -> None:
    form = {"project": project.pk, "name": "x"}
    assert people.post(reverse("admin:opscore_apikey_add"), form).status_code == 200
    assert not ApiKey.objects.exists()


def _act(browser: Client, page: str, action: str, row: str) -> Any:
    data = {"action": action, "_selected_action": [row]}
    return browser.post(reverse(f"admin:{page}_changelist"), data, follow=True)


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
    RateWindow.objects.create(project=project, key="k")
    _fill_agents(session_id, project)
    assert Attempt.objects.exists()
    assert TaskLog.objects.exists()
    assert AgentSession.objects.exists()


def _fill_agents(session_id: str, project: Project) -> None:
    from agents import output, pools, usage
    from agents.models import Host

    host = Host.objects.create(project=project, name="here", specs={"a": {"kind": "worker"}})
    pools.scale(host, "a", 2)
    agent_id = AgentSession.objects.get(pk=session_id).agent_id
    usage.write({agent_id: usage.Usage(2**20, 3.0)})
    output.write({agent_id: "a <b>line</b>"})
