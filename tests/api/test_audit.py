"""The audit log: what is recorded, what is not, and that nobody changes it unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import reverse

from opscore import keys
from opscore.models import ApiKey, AuditEntry, Membership, Project
from tests.api.conftest import Api, act

pytestmark = pytest.mark.django_db
ECHO = {"capability": "echo", "inputs": {"secret": "hush"}}


def rows() -> list[tuple[str, str, int | None]]:
    return [(row.action, row.actor, row.status) for row in AuditEntry.objects.order_by("id")]


class TestCalls:
    def test_a_change_is_one_row_with_who_where_and_what(self, api: Api) -> None:
        made = api("POST", "/api/v1/tasks", ECHO, X_Request_ID="req-1").json()
        api("PUT", f"/tasks/{made['id']}/cancel")
        first, second = AuditEntry.objects.order_by("id")
        assert (first.action, first.target, first.status) == ("POST /tasks", "/tasks", 201)
        assert (first.actor, first.actor_kind) == ("test", "key")
        assert first.key == api.key.split("_")[1]
        assert (first.address, first.request_id) == ("127.0.0.1", "req-1")
        assert first.project is not None
        assert first.number is None
        assert "hush" not in str(first.data)
        assert second.action == "PUT /tasks/{task_id}/cancel"
        assert second.target == f"/tasks/{made['id']}/cancel"

    def test_what_changes_nothing_is_no_row(self, api: Api) -> None:
        api("GET", "/tasks")
        api("POST", "/tasks", {"capability": ""})
        api("PUT", "/tasks/01890000-0000-7000-8000-000000000000/cancel")
        api("POST", "/workflows/validate", {"name": "x", "tasks": {}})
        assert rows() == []

    def test_calls_without_the_right_are_rows(self, make_api: Callable[..., Api]) -> None:
        make_api("read")("POST", "/tasks", ECHO)
        make_api()("POST", "/tasks", ECHO)
        make_api()("GET", "/tasks")
        make_api("read")("GET", "/audit")
        assert rows() == [
            ("POST /tasks", "test", 403),
            ("POST /tasks", "", 401),
            ("GET /audit", "test", 403),
        ]

    def test_an_executor_writes_none_while_it_is_right(
        self, api: Api, session_id: str, make_api: Callable[..., Api]
    ) -> None:
        api("POST", "/tasks", ECHO)
        before = AuditEntry.objects.count()
        agent = make_api("agent")
        [task] = agent("POST", f"/sessions/{session_id}/claim", {}).json()["tasks"]
        fence = {"fence": task["fence"]}
        path = f"/tasks/{task['id']}"
        agent("POST", f"/sessions/{session_id}/heartbeat", {"tasks": [{"id": task["id"], **fence}]})
        agent("POST", f"{path}/logs", {**fence, "lines": ["x"]})
        agent("POST", f"{path}/progress", {**fence, "fraction": 1})
        agent("PUT", f"/runs/{task['run_id']}/context/a", {"value": 1})
        agent("POST", f"{path}/report", {**fence, "status": "completed"})
        assert AuditEntry.objects.count() == before
        api("PUT", f"/runs/{api('POST', '/tasks', ECHO).json()['run_id']}/context/a", {"value": 1})
        assert AuditEntry.objects.count() == before + 2

    def test_keys_say_what_was_done_to_them(self, api: Api) -> None:
        made = api("POST", "/keys", {"name": "ci", "scopes": ["read"]}).json()
        turned = api("POST", "/keys/ci/rotate", {"overlap_s": 60}).json()
        api("DELETE", f"/keys/{turned['prefix']}")
        created, rotated, revoked = AuditEntry.objects.order_by("id")
        assert created.data["changes"] == [
            {"created": {"key": made["prefix"], "name": "ci", "scopes": ["read"]}}
        ]
        assert rotated.data["sent"] == {"overlap_s": 60}
        assert rotated.data["changes"][0]["rotated"]["expires_at"][0] is None
        assert rotated.data["changes"][1]["created"]["key"] == turned["prefix"]
        assert revoked.data["changes"][0]["revoked"]["was"] == "usable"
        assert made["key"] not in str(list(AuditEntry.objects.values()))

    @pytest.mark.parametrize("kind", ["application/json", "text/plain"])
    def test_a_body_that_cannot_be_read_changes_nothing(
        self, api: Api, agent: dict[str, Any], project: Project, kind: str
    ) -> None:
        keys.create(project, "ci", ["read"])
        before = AuditEntry.objects.count()
        told = {"Content_Type": kind}
        assert api("DELETE", "/keys/ci", "{bad", **told).status_code in {400, 415}
        assert api("POST", "/agents/echo-1/pause", "{bad", **told).status_code in {400, 415}
        assert keys.state_of(ApiKey.objects.get(name="ci")) == "usable"
        assert not api("GET", "/agents/echo-1").json()["paused"]
        assert AuditEntry.objects.count() == before

    def test_an_answer_given_again_is_told_from_a_change(self, api: Api) -> None:
        for _ in range(2):
            api("POST", "/tasks", ECHO, Idempotency_Key="k")
        first, again = AuditEntry.objects.order_by("id")
        assert "replayed" not in first.data
        assert again.data["replayed"] is True

    def test_a_row_that_cannot_be_written_fails_nobody(self, api: Api) -> None:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE opscore_auditentry RENAME TO gone")
        assert api("POST", "/tasks", ECHO).status_code == 201

    def test_nor_does_a_connection_that_is_gone(
        self, api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        execute = psycopg.Cursor.execute

        def lost(cursor: Any, sql: Any, *args: Any, **more: Any) -> Any:
            if "INSERT INTO opscore_auditentry" in str(sql):
                raise psycopg.InterfaceError("the connection is closed")
            return execute(cursor, sql, *args, **more)

        monkeypatch.setattr(psycopg.Cursor, "execute", lost)
        assert api("POST", "/tasks", ECHO).status_code == 201
        assert "a row of the audit log is lost" in caplog.text
        assert "POST /tasks" in caplog.text


class TestPages:
    def test_logins_failed_logins_and_logouts_are_rows(self, project: Project) -> None:
        User.objects.create_superuser("alice", "alice@example.org", "wonderland")
        browser = Client()
        login = reverse("admin:login")
        browser.post(login, {"username": "alice", "password": "wrong"})
        browser.post(login, {"username": "hunter2", "password": "alice"})
        browser.post(login, {"username": "alice", "password": "wonderland"})
        browser.post(reverse("admin:logout"))
        told = [(row.action, row.target) for row in AuditEntry.objects.order_by("id")]
        assert told == [
            ("login.failed", "alice"),
            ("login.failed", "(unknown)"),
            ("login", "alice"),
            ("logout", "alice"),
        ]
        assert "hunter2" not in str(list(AuditEntry.objects.values()))

    def test_changes_and_actions_are_rows(self, people: Client, project: Project) -> None:
        before = AuditEntry.objects.count()
        key, _ = keys.create(project, "ci", ["read"])
        act(people, "opscore_apikey", "revoke", str(key.pk))
        people.post(reverse("admin:opscore_project_add"), {"slug": "second"})
        people.post(reverse("admin:opscore_project_add"), {"slug": "not a slug"})
        revoked, added = AuditEntry.objects.order_by("id")[before:]
        assert (revoked.actor, revoked.actor_kind) == ("alice", "user")
        assert revoked.action == "POST admin:opscore_apikey_changelist"
        assert (revoked.data["action"], revoked.data["rows"]) == ("revoke", [str(key.pk)])
        assert revoked.data["changes"][0]["revoked"]["key"] == key.prefix
        assert added.data["changes"][0]["fields"] == {"slug": [None, "second"]}
        assert added.data["changes"][1]["object"] == "second"

    def test_projects_learn_what_is_done_to_their_things(
        self, people: Client, api: Api, project: Project
    ) -> None:
        other = Project.objects.create(slug="other")
        mine, _ = keys.create(project, "mine", ["read"])
        theirs, _ = keys.create(other, "theirs", ["read"])
        before = AuditEntry.objects.count()
        act(people, "opscore_apikey", "revoke", str(mine.pk))
        [row] = AuditEntry.objects.order_by("id")[before:]
        assert row.project == project
        told = {"action": "revoke", "_selected_action": [str(mine.pk), str(theirs.pk)]}
        people.post(reverse("admin:opscore_apikey_changelist"), told)
        rows = AuditEntry.objects.order_by("id")[before + 1 :]
        assert [row.project for row in rows] == [None, project, other]
        assert [bool(row.data) for row in rows] == [True, False, False]
        people.post(reverse("admin:opscore_project_change", args=[other.pk]), {})
        member = User.objects.create_user("bob")
        people.post(
            reverse("admin:opscore_membership_add"), {"user": member.pk, "project": other.pk}
        )
        last = AuditEntry.objects.order_by("-id").first()
        assert last is not None
        assert (last.project, last.action) == (other, "POST admin:opscore_membership_add")
        assert last.data["changes"]
        people.post(
            reverse("admin:opscore_membership_delete", args=[Membership.objects.get().pk]),
            {"post": "yes"},
        )
        last = AuditEntry.objects.order_by("-id").first()
        assert last is not None
        assert last.project == other
        listed = api("GET", "/audit").json()["results"]
        assert "POST admin:opscore_apikey_changelist" in [row["action"] for row in listed]
        assert "theirs" not in str(listed)

    def test_a_stranger_who_posts_is_a_row(self, client: Client, project: Project) -> None:
        client.post(reverse("admin:opscore_project_add"), {"slug": "mine"})
        assert rows() == [("POST admin:opscore_project_add", "", 401)]


class TestFaces:
    def test_admins_list_filter_and_verify(self, api: Api, make_api: Callable[..., Api]) -> None:
        api("POST", "/tasks", ECHO)
        make_api("write")("POST", "/keys", {"name": "x"})
        listed = api("GET", "/audit").json()["results"]
        assert [row["action"] for row in listed] == ["POST /keys", "POST /tasks"]
        assert [row["status"] for row in api("GET", "/audit?status=403").json()["results"]] == [403]
        assert len(api("GET", "/audit?action=POST%20/tasks").json()["results"]) == 1
        assert api("GET", "/audit?actor=nobody").json()["results"] == []
        assert api("GET", "/audit?since=2999-01-01T00:00:00Z").json()["results"] == []
        verdict = api("GET", "/audit/verify").json()
        assert (verdict["ok"], verdict["checked"]) == (True, 2)
        assert make_api("write")("GET", "/audit").status_code == 403

    def test_a_project_sees_its_own_rows_only(self, api: Api) -> None:
        api("POST", "/tasks", ECHO)
        foreign = Project.objects.create(slug="other")
        _, api.key = keys.create(foreign, "foreign", ["admin"])
        assert api("GET", "/audit").json()["results"] == []

    def test_the_admin_shows_the_log(self, people: Client, api: Api) -> None:
        api("POST", "/tasks", ECHO)
        row = AuditEntry.objects.order_by("-id").first()
        assert row is not None
        page = people.get(reverse("admin:opscore_auditentry_changelist"))
        assert "POST /tasks" in page.content.decode()
        assert (
            people.get(reverse("admin:opscore_auditentry_change", args=[row.pk])).status_code == 200
        )
        assert ApiKey.objects.exists()
