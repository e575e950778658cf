"""The executor protocol over HTTP: sessions, claims, heartbeats, reports, logs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.db import connection

from agents.models import AgentSession
from opscore.config import load_config
from opscore.models import Event
from tasks.models import Task
from tasks.reconcile import reconcile

ECHO = {"capability": "echo", "inputs": {"n": 1}}


def claim(api: Any, session_id: str, **body: Any) -> list[dict[str, Any]]:
    answer = api("POST", f"/sessions/{session_id}/claim", body)
    assert answer.status_code == 200, answer.content
    tasks: list[dict[str, Any]] = answer.json()["tasks"]
    return tasks


@pytest.mark.django_db
class TestProtocol:
    """Against Django's test client, where a claim never waits."""

    def test_task_is_claimed_reported_and_completed(self, api: Any, session_id: str) -> None:
        made = api("POST", "/tasks", ECHO).json()
        [task] = claim(api, session_id)
        assert (task["id"], task["inputs"], task["attempt"]) == (made["id"], {"n": 1}, 1)
        assert task["idempotency_key"] == made["id"]
        path = f"/tasks/{task['id']}"
        shown = api("GET", path).json()
        assert (shown["status"], shown["agent"]["name"]) == ("running", "echo-1")
        assert claim(api, session_id) == []
        report = {"fence": task["fence"], "status": "completed", "result": {"ok": [1]}}
        assert api("POST", f"{path}/report", report).status_code == 204
        shown = api("GET", path).json()
        assert (shown["status"], shown["result"]) == ("completed", {"ok": [1]})
        assert api("GET", f"/runs/{task['run_id']}").json()["status"] == "completed"
        assert [t["id"] for t in api("GET", "/tasks?agent=echo-1").json()["results"]] == [
            task["id"]
        ]

    def test_most_urgent_tasks_come_first(self, api: Any, session_id: str) -> None:
        for priority in (1, 9, 5):
            api("POST", "/tasks", {**ECHO, "priority": priority})
        assert [task["priority"] for task in claim(api, session_id, limit=2)] == [9, 5]

    def test_failed_report_retries_or_fails(self, api: Any, session_id: str) -> None:
        api("POST", "/tasks", {**ECHO, "retry": {"limit": 1, "initial_s": 60}})
        [task] = claim(api, session_id)
        error = {"type": "oops", "message": "no luck", "retryable": True}
        report = {"fence": task["fence"], "status": "failed", "error": error}
        assert api("POST", f"/tasks/{task['id']}/report", report).status_code == 204
        shown = api("GET", f"/tasks/{task['id']}").json()
        assert shown["status"] == "retrying"
        assert shown["attempts"][0]["error"]["message"] == "no luck"
        api("POST", "/tasks", ECHO)
        [task] = claim(api, session_id)
        report = {"fence": task["fence"], "status": "failed", "error": error}
        api("POST", f"/tasks/{task['id']}/report", report)
        assert api("GET", f"/tasks/{task['id']}").json()["status"] == "failed"

    def test_failure_without_a_message_is_recorded(self, api: Any, session_id: str) -> None:
        api("POST", "/tasks", ECHO)
        [task] = claim(api, session_id)
        error = {"type": "KeyError", "message": ""}
        report = {"fence": task["fence"], "status": "failed", "error": error}
        assert api("POST", f"/tasks/{task['id']}/report", report).status_code == 204
        shown = api("GET", f"/tasks/{task['id']}").json()
        assert (shown["status"], shown["error"]["message"]) == ("failed", "")

    def test_a_stale_fence_is_refused(self, api: Any, session_id: str) -> None:
        api("POST", "/tasks", ECHO)
        [task] = claim(api, session_id)
        for fence in (task["fence"] - 1, task["fence"] + 1):
            for report in (
                {"fence": fence, "status": "completed", "result": 1},
                {"fence": fence, "status": "failed", "error": {"type": "x", "message": "y"}},
            ):
                answer = api("POST", f"/tasks/{task['id']}/report", report)
                assert answer.status_code == 409
            lines = {"fence": fence, "lines": ["late"]}
            assert api("POST", f"/tasks/{task['id']}/logs", lines).status_code == 409
        assert api("GET", f"/tasks/{task['id']}").json()["status"] == "running"

    def test_a_report_about_a_task_that_nobody_claimed_is_refused_and_noted(
        self, api: Any, session_id: str
    ) -> None:
        task = api("POST", "/tasks", ECHO).json()
        for report in (
            {"fence": 0, "status": "completed", "result": "invented"},
            {"fence": 1, "status": "failed", "error": {"type": "x", "message": "y"}},
        ):
            assert api("POST", f"/tasks/{task['id']}/report", report).status_code == 409
        assert api("GET", f"/tasks/{task['id']}").json()["status"] == "queued"
        noted = Event.objects.filter(kind="report.refused", task_id=task["id"])
        assert [event.data["task"] for event in noted] == ["queued", "queued"]

    @pytest.mark.parametrize(
        "report",
        [
            {},
            {"status": "completed"},
            {"fence": 1, "status": "done"},
            {"fence": 1, "status": "failed"},
            {"fence": 1, "status": "failed", "error": "text"},
            {"fence": "x", "status": "completed"},
        ],
    )
    def test_reports_that_make_no_sense_are_refused(
        self, api: Any, session_id: str, report: dict[str, Any]
    ) -> None:
        api("POST", "/tasks", ECHO)
        [task] = claim(api, session_id)
        assert api("POST", f"/tasks/{task['id']}/report", report).status_code == 400

    def test_a_report_needs_no_result(self, api: Any, session_id: str) -> None:
        api("POST", "/tasks", ECHO)
        [task] = claim(api, session_id)
        report = {"fence": task["fence"], "status": "completed"}
        assert api("POST", f"/tasks/{task['id']}/report", report).status_code == 204
        assert api("GET", f"/tasks/{task['id']}").json()["result"] is None

    def test_heartbeat_names_what_was_taken_away(self, api: Any, session_id: str) -> None:
        for _ in range(2):
            api("POST", "/tasks", ECHO)
        kept, lost = claim(api, session_id, limit=2)
        api("PUT", f"/tasks/{lost['id']}/cancel")
        held = [{"id": task["id"], "fence": task["fence"]} for task in (kept, lost)]
        beat = api("POST", f"/sessions/{session_id}/heartbeat", {"tasks": held})
        assert beat.status_code == 200
        assert beat.json() == {"cancelled": [lost["id"]]}
        assert api("POST", f"/sessions/{session_id}/heartbeat").json() == {"cancelled": []}

    def test_a_claim_whose_answer_was_lost_is_put_back_by_the_heartbeat(
        self, api: Any, session_id: str
    ) -> None:
        api("POST", "/tasks", ECHO)
        [task] = claim(api, session_id)
        beat = f"/sessions/{session_id}/heartbeat"
        api("POST", beat, {"tasks": []})
        # It may still be on its way.
        assert api("GET", f"/tasks/{task['id']}").json()["status"] == "running"
        with connection.cursor() as cursor:
            cursor.execute("UPDATE tasks_task SET started_at = now() - interval '1 minute'")
        api("POST", beat, {"tasks": []})
        assert api("GET", f"/tasks/{task['id']}").json()["status"] == "queued"
        [again] = claim(api, session_id)
        assert again["fence"] > task["fence"]

    @pytest.fixture
    def short_lives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Sessions that live not longer than the tests' database, which gives a fresh term."""
        monkeypatch.setattr(load_config(), "session_ttl_s", 2.0)

    @pytest.mark.usefixtures("short_lives")
    def test_a_task_that_its_executor_never_names_is_given_back(
        self, api: Any, session_id: str
    ) -> None:
        api("POST", "/tasks", ECHO)
        [task] = claim(api, session_id)
        reconcile()
        path = f"/tasks/{task['id']}"
        assert api("GET", path).json()["status"] == "running"
        let_pass("tasks_task", "started_at")
        # It lives: it goes on to claim.
        assert claim(api, session_id) == []
        reconcile()
        shown = api("GET", path).json()
        assert (shown["status"], shown["losses"]) == ("queued", 1)
        assert "named it in no heartbeat for 2 s" in shown["attempts"][0]["error"]["message"]
        [event] = Event.objects.filter(kind="task.lost", task_id=task["id"])
        assert "named it in no heartbeat" in event.data["message"]
        [again] = claim(api, session_id)
        assert again["fence"] > task["fence"]

    @pytest.mark.usefixtures("short_lives")
    @pytest.mark.parametrize(
        ("what", "body"),
        [
            ("heartbeat", {}),
            ("logs", {"lines": ["at it"]}),
            ("progress", {"fraction": 0.5}),
        ],
    )
    def test_a_task_that_its_executor_speaks_of_is_left_to_it(
        self, api: Any, session_id: str, what: str, body: dict[str, Any]
    ) -> None:
        api("POST", "/tasks", ECHO)
        [task] = claim(api, session_id)
        path, fence = f"/tasks/{task['id']}", {"fence": task["fence"]}
        if what == "heartbeat":
            body, where = {"tasks": [{"id": task["id"], **fence}]}, f"/sessions/{session_id}"
        else:
            body, where = {**body, **fence}, path
        assert api("POST", f"{where}/{what}", body).status_code < 300
        let_pass("tasks_task", "started_at")
        reconcile()
        assert api("GET", path).json()["status"] == "running"
        let_pass("agents_agentsession", "beat_at")
        let_pass("tasks_tasklog", "at")
        let_pass("tasks_taskprogress", "updated_at")
        reconcile()
        assert api("GET", path).json()["status"] == "queued"

    def test_a_program_that_is_about_to_be_recycled_gets_no_more_tasks(
        self, api: Any, session_id: str
    ) -> None:
        AgentSession.objects.update(max_claims=3, claims=2)
        for _ in range(5):
            api("POST", "/tasks", ECHO)
        assert len(claim(api, session_id, limit=2)) == 1
        AgentSession.objects.update(claims=3)
        assert claim(api, session_id, limit=2) == []

    @pytest.mark.parametrize("body", ["{oops", {"fence": 1, "status": "failed"}, {}])
    def test_a_report_that_cannot_be_read_is_noted(
        self, api: Any, session_id: str, body: Any
    ) -> None:
        api("POST", "/tasks", ECHO)
        [task] = claim(api, session_id)
        assert api("POST", f"/tasks/{task['id']}/report", body).status_code == 400
        [event] = Event.objects.filter(kind="report.invalid", task_id=task["id"])
        assert event.data["message"]

    def test_an_ended_session_can_do_nothing_more(self, api: Any, session_id: str) -> None:
        assert api("DELETE", f"/sessions/{session_id}").status_code == 204
        assert api("DELETE", f"/sessions/{session_id}").status_code == 204
        assert api("POST", f"/sessions/{session_id}/claim", {}).status_code == 409
        assert api("POST", f"/sessions/{session_id}/heartbeat", {}).status_code == 409

    def test_a_new_session_ends_the_old_one(self, api: Any, session_id: str) -> None:
        began = api("POST", "/agents/echo-1/sessions", {"host": "there", "pid": 7})
        assert began.status_code == 201
        assert began.json()["heartbeat_s"] == 10
        assert api("POST", f"/sessions/{session_id}/claim", {}).status_code == 409
        assert AgentSession.objects.filter(ended_at=None).count() == 1

    def test_lines_are_logged_under_their_attempt(self, api: Any, session_id: str) -> None:
        api("POST", "/tasks", ECHO)
        [task] = claim(api, session_id)
        path = f"/tasks/{task['id']}/logs"
        lines = {"fence": task["fence"], "lines": ["one", "  two"], "stream": "stderr"}
        assert api("POST", path, lines).status_code == 204
        rows = api("GET", path).json()["results"]
        assert [row["text"] for row in rows] == ["  two", "one"]
        assert {row["stream"] for row in rows} == {"stderr"}
        assert api("GET", f"{path}?stream=log").json()["results"] == []
        assert len(api("GET", f"{path}?attempt=1").json()["results"]) == 2

    @pytest.mark.parametrize(
        "body", [{"limit": 0}, {"limit": 101}, {"wait_s": -1}, {"wait_s": 31}, {"x": 1}]
    )
    def test_claims_have_bounds(self, api: Any, session_id: str, body: dict[str, Any]) -> None:
        assert api("POST", f"/sessions/{session_id}/claim", body).status_code == 400


def let_pass(table: str, column: str) -> None:
    """Make a time older by more than a session's time to live."""
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {column} = {column} - interval '1 minute'")


@pytest.mark.django_db(transaction=True)
class TestWaiting:
    """Against a live server, where a claim waits for work."""

    @pytest.fixture
    def http(self, server: Any) -> Iterator[httpx.Client]:
        with server.client() as client:
            yield client

    @pytest.fixture
    def live_session(self, http: httpx.Client) -> str:
        body = {"name": "echo-1", "kind": "remote", "capabilities": ["echo"]}
        assert http.post("/agents", json=body).status_code == 201
        return str(http.post("/agents/echo-1/sessions", json={}).json()["session_id"])

    def test_a_waiting_claim_gets_a_task_as_soon_as_it_is_submitted(
        self, server: Any, http: httpx.Client, live_session: str, wait_until: Any
    ) -> None:
        path = f"/sessions/{live_session}/claim"
        assert http.post(path, json={"wait_s": 0.2}).json() == {"tasks": []}
        with ThreadPoolExecutor(1) as pool, server.client() as other:
            waiting = pool.submit(other.post, path, json={"wait_s": 20})
            wait_until(lambda: _listeners() > 0)
            made = http.post("/tasks", json=ECHO).json()
            answer = waiting.result(10)
        assert [task["id"] for task in answer.json()["tasks"]] == [made["id"]]
        # By announcement, not by the next look of the poll.
        assert answer.elapsed.total_seconds() < 5

    def test_waiting_claims_hold_no_thread_that_others_need(
        self, server: Any, http: httpx.Client, live_session: str
    ) -> None:
        path = f"/sessions/{live_session}/claim"
        limits = httpx.Limits(max_connections=100)
        with ThreadPoolExecutor(40) as pool, server.client(limits=limits) as others:
            waiting = [pool.submit(others.post, path, json={"wait_s": 4}) for _ in range(40)]
            for _ in range(10):
                answer = http.get("/agents")
                assert answer.status_code == 200
                assert answer.elapsed.total_seconds() < 2
            assert not any(turn.done() for turn in waiting)
            for turn in waiting:
                assert turn.result(20).json() == {"tasks": []}

    def test_a_key_that_is_revoked_while_its_claim_waits_is_refused(
        self, server: Any, http: httpx.Client, live_session: str, wait_until: Any
    ) -> None:
        from opscore.models import ApiKey

        with ThreadPoolExecutor(1) as pool, server.client() as other:
            waiting = pool.submit(
                other.post, f"/sessions/{live_session}/claim", json={"wait_s": 20}
            )
            wait_until(lambda: _listeners() > 0)
            ApiKey.objects.update(revoked_at="2020-01-01T00:00:00Z")
            assert waiting.result(10).status_code == 401

    def test_a_client_that_left_is_given_nothing(
        self, server: Any, http: httpx.Client, live_session: str, wait_until: Any
    ) -> None:
        path = f"/sessions/{live_session}/claim"
        with server.client() as other, pytest.raises(httpx.ReadTimeout):
            other.post(path, json={"wait_s": 25}, timeout=0.5)
        made = http.post("/tasks", json=ECHO).json()
        # Whoever asks next gets it; the waiting claim of before has ended with its client.
        got = http.post(path, json={"wait_s": 5}).json()["tasks"]
        assert [task["id"] for task in got] == [made["id"]]

    def test_work_is_found_although_the_announcements_are_cut_off(
        self, server: Any, http: httpx.Client, live_session: str, wait_until: Any
    ) -> None:
        with ThreadPoolExecutor(1) as pool, server.client() as other:
            path = f"/sessions/{live_session}/claim"
            waiting = pool.submit(other.post, path, json={"wait_s": 20})
            wait_until(lambda: _listeners() > 0)
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND query LIKE 'LISTEN %'"
                )
            made = http.post("/tasks", json=ECHO).json()
            answer = waiting.result(15)
            assert [task["id"] for task in answer.json()["tasks"]] == [made["id"]]
            # And the next one that waits is listened for again.
            waiting = pool.submit(other.post, path, json={"wait_s": 10})
            wait_until(lambda: _listeners() > 0)
            http.delete(f"/sessions/{live_session}")
            assert waiting.result(15).status_code == 409

    def test_a_chunked_body_over_the_limit_is_cut_off(self, http: httpx.Client) -> None:
        def endless() -> Iterator[bytes]:
            for _ in range(8):
                yield b"x" * 1_000_000

        try:
            answer = http.post("/tasks", content=endless())
        except httpx.TransportError:
            # The server hung up while the client was still sending: as good an answer.
            return
        assert answer.status_code == 413
        assert answer.json()["code"] == "too_large"
        assert not Task.objects.exists()

    def test_pages_and_odd_addresses_are_served_by_the_same_process(
        self, server: Any, http: httpx.Client
    ) -> None:
        assert http.get("/admin/login/").status_code == 200
        assert http.get("/static/unfold/css/styles.css").status_code == 200
        for odd in ("//agents", "/agents/%00", "/agents/%ff", "/agents/a%2Fb"):
            answer = http.get(server.url + odd)
            assert answer.status_code in {400, 404}, odd
            assert answer.json()["request_id"] == answer.headers["X-Request-ID"]

    def test_announced_body_over_the_limit_is_refused(self, http: httpx.Client) -> None:
        answer = http.post("/tasks", content=b"x" * 5_000_000)
        assert answer.status_code == 413
        assert answer.json()["request_id"]


def _listeners() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN %'"
        )
        row = cursor.fetchone()
    return int(row[0]) if row else 0
