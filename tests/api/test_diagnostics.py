"""`GET /diagnostics`: what a support person would ask for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.utils import timezone

from agents import breakers
from agents.models import Agent, Host
from opscore import keys, vault
from opscore.config import load_config
from opscore.diagnosis import findings
from opscore.jobs import note_beat
from opscore.models import AuditEntry, Project, Secret, Sign
from tasks.pusher import LOCK_CLASS
from tests.api.conftest import Api

pytestmark = pytest.mark.django_db


def found(api: Api, part: str) -> list[tuple[str, str]]:
    answer = api("GET", "/diagnostics")
    assert answer.status_code == 200, answer.content
    rows = answer.json()["findings"]
    assert all(row["advice"] for row in rows if row["status"] != "ok"), rows
    return [(row["status"], row["message"]) for row in rows if row["part"] == part]


def test_a_platform_that_stands_says_so(api: Api, project: Project) -> None:
    note_beat()
    answer = api("GET", "/diagnostics").json()
    well = {row["part"] for row in answer["findings"] if row["status"] == "ok"}
    assert well >= {
        "database",
        "broker",
        "connections",
        "migrations",
        "clocks",
        "beat",
        "breakers",
        "pusher",
        "queues",
        "stuck runs",
        "schedules",
        "secrets",
        "settings",
        "audit log",
        "disk",
    }
    # No supervisor and no agent is there.
    assert answer["status"] == "warn"
    assert answer["key"]["scopes"] == ["admin"]
    assert answer["project"] == "default"


def test_only_administrators_see_it(api: Api, project: Project) -> None:
    _, api.key = keys.create(project, "ci", ["read", "write"])
    assert api("GET", "/diagnostics").status_code == 403


def test_a_silent_beat_is_noticed(api: Api, project: Project) -> None:
    [(status, message)] = found(api, "beat")
    assert (status, "so far" in message) == ("warn", True)
    note_beat()
    assert found(api, "beat")[0][0] == "ok"
    Sign.objects.update(seen_at=timezone.now() - timedelta(minutes=5))
    assert found(api, "beat")[0][0] == "warn"


def test_agents_and_hosts_that_need_somebody(api: Api, project: Project) -> None:
    Host.objects.create(project=project, name="dead", seen_at=timezone.now() - timedelta(hours=1))
    assert [status for status, _ in found(api, "hosts")] == ["fail"]
    Host.objects.create(project=project, name="box", pid=1)
    assert [status for status, _ in found(api, "hosts")] == ["ok", "warn"]
    Agent.objects.create(
        project=project, name="lint-1", kind="worker", status="error", reason="exit 3\nmore"
    )
    Agent.objects.create(project=project, name="mute", kind="remote", status="unresponsive")
    Agent.objects.create(project=project, name="still", kind="remote", status="active", paused=True)
    other = Project.objects.create(slug="other")
    Agent.objects.create(project=other, name="foreign", kind="remote", status="error")
    said = found(api, "agents")
    assert said[0] == ("ok", "1 active, 1 error, 1 unresponsive")
    assert said[1] == ("fail", "lint-1 was given up: exit 3")
    assert said[2][1].startswith("mute does not answer")
    assert said[3] == ("warn", "paused by hand: still")
    assert not any("foreign" in message for _, message in said)


def test_tasks_that_nobody_is_able_to_do(api: Api, session_id: str) -> None:
    api("POST", "/tasks", {"capability": "echo"})
    assert found(api, "queues")[0][0] == "ok"
    api("POST", "/tasks", {"capability": "paint"})
    api("POST", "/tasks", {"capability": "echo", "requires": ["gpu"]})
    said = found(api, "queues")
    assert [status for status, _ in said] == ["fail", "fail"]
    assert "the 1 queued for paint" in said[0][1]
    assert "echo with gpu" in said[1][1]


def test_breakers_and_pauses_are_told(api: Api, project: Project) -> None:
    breakers.open_by_hand(project, "resource", "openai", reason="quota")
    [(status, message)] = found(api, "breakers")
    assert (status, message) == ("warn", "that of the resource openai is open: quota")
    api("POST", "/pauses", {"reason": "moving"})
    [(status, message)] = found(api, "pauses")
    assert "everything is paused since" in message
    assert "(moving)" in message


def test_a_run_without_a_live_task_is_told(api: Api, project: Project) -> None:
    from tasks.models import Run, Task

    run_id = api("POST", "/tasks", {"capability": "echo"}).json()["run_id"]
    Task.objects.filter(run_id=run_id).delete()
    Run.objects.filter(pk=run_id).update(created_at=timezone.now() - timedelta(minutes=5))
    assert [status for status, _ in found(api, "stuck runs")] == ["fail"]


def test_schedules_that_are_late(api: Api, project: Project) -> None:
    from workflows.models import Schedule

    api("POST", "/workflows", {"name": "w", "tasks": {"a": {"capability": "echo"}}})
    api("POST", "/schedules", {"name": "hourly", "workflow": "w", "every_s": 3600})
    assert found(api, "schedules") == [("ok", "1 fire in time")]
    Schedule.objects.update(next_at=timezone.now() - timedelta(minutes=10))
    assert found(api, "schedules")[0] == ("fail", "due and not fired: hourly")
    api("POST", "/schedules/hourly/pause")
    assert ("warn", "paused by hand: hourly") in found(api, "schedules")


def test_secrets_that_no_key_opens(api: Api, project: Project) -> None:
    vault.put(project, "GOOD", "a long value")
    assert found(api, "secrets")[0][0] == "ok"
    Secret.objects.create(project=project, name="LOST", sealed=b"nothing that opens")
    assert found(api, "secrets") == [("fail", "cannot be read here: LOST")]


def test_rows_of_the_audit_log_that_nobody_sealed(api: Api, project: Project) -> None:
    AuditEntry.objects.create(action="x", at=timezone.now() - timedelta(hours=1))
    assert found(api, "audit log")[0][0] == "warn"


@pytest.fixture
def lock() -> Iterator[None]:
    """What the pusher holds while it works."""
    url = load_config().service_url("database_url")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s, 0)", [LOCK_CLASS])
        yield


def test_the_pusher_is_missed_by_agents_of_kind_http(api: Api, project: Project) -> None:
    Agent.objects.create(project=project, name="web", kind="http", status="active")
    assert found(api, "pusher")[0][0] == "fail"


def test_the_pusher_is_seen(api: Api, project: Project, lock: None) -> None:
    assert found(api, "pusher") == [("ok", "runs")]


def test_settings_of_development_that_others_reach(
    api: Api, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_config(), "host", "0.0.0.0")
    answer = api("GET", "/diagnostics").json()["findings"]
    [row] = [row for row in answer if row["part"] == "settings"]
    assert (row["status"], "OPSCORE_SECRET_KEY" in row["advice"]) == ("warn", True)


def test_a_check_that_breaks_is_a_finding(project: Project) -> None:
    def roof(_: Project) -> Iterator[Any]:
        yield from Path("postgresql://user:secret@host").iterdir()

    [finding] = findings([roof], project)
    assert (finding.part, finding.status) == ("roof", "fail")
    assert "secret" not in finding.message
