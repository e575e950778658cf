"""`?wait=`: the answer comes with the end, or with the present state when the time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.db import connection

from opscore import keys
from opscore.api.watching import wait_of
from opscore.errors import InvalidError
from opscore.models import ApiKey, Project
from tasks import control
from tasks.models import Run, Task
from tests.conftest import WaitUntil
from tests.live_server import Server


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, 0), ("0", 0), ("30", 30), ("1.5", 1.5), ("30s", 30), ("1m", 60), ("500ms", 0.5)],
)
def test_what_a_wait_may_be(text: str | None, seconds: float) -> None:
    assert wait_of(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "61", "2m", "1e9", "NaN", "30 s", "\u0661"])
def test_what_a_wait_may_not_be(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        wait_of(text)
    assert caught.value.problems[0].path == "wait"


@pytest.mark.django_db
def test_a_wrong_wait_submits_nothing(api: Any) -> None:
    answer = api("POST", "/tasks?wait=soon", {"capability": "x"})
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "wait")
    assert not Task.objects.exists()


@pytest.mark.django_db(transaction=True)
class TestLive:
    """At a live server."""

    @pytest.fixture
    def http(self, server: Server) -> Iterator[httpx.Client]:
        with server.client() as client:
            yield client

    @pytest.fixture
    def aside(self) -> Iterator[Callable[..., Future[Any]]]:
        with ThreadPoolExecutor(4) as pool:
            yield pool.submit

    def test_a_task_that_ends_answers_at_once(
        self, http: httpx.Client, aside: Any, wait_until: WaitUntil
    ) -> None:
        task = http.post("/tasks", json={"capability": "x"}).json()
        seen = [
            aside(http.get, f"/tasks/{task['id']}?wait=1m"),
            aside(http.get, f"/runs/{task['run_id']}?wait=15"),
            aside(http.post, "/tasks?wait=15s", json={"capability": "x", "key": "own"}),
        ]
        wait_until(lambda: Task.objects.count() == 2)
        for row in Task.objects.all():
            control.cancel_task(row.pk, actor="test")
        answers = [turn.result(10) for turn in seen]
        assert [answer.status_code for answer in answers] == [200, 200, 201]
        assert [answer.json()["status"] for answer in answers] == ["cancelled"] * 3
        assert answers[2].headers["Location"] == f"/tasks/{answers[2].json()['id']}"

    def test_time_that_is_over_answers_with_the_present_state(self, http: httpx.Client) -> None:
        answer = http.post("/tasks?wait=200ms", json={"capability": "x"})
        assert (answer.status_code, answer.json()["status"]) == (201, "queued")
        assert answer.elapsed.total_seconds() >= 0.2

    def test_what_has_ended_is_not_waited_for(self, http: httpx.Client) -> None:
        task = http.post("/tasks", json={"capability": "x"}).json()
        http.put(f"/tasks/{task['id']}/cancel")
        answer = http.get(f"/tasks/{task['id']}?wait=30s")
        assert answer.elapsed.total_seconds() < 10
        assert answer.json()["status"] == "cancelled"

    def test_a_workflow_is_executed_and_waited_for(
        self, http: httpx.Client, aside: Any, wait_until: WaitUntil
    ) -> None:
        http.post("/workflows", json={"name": "one", "tasks": {"a": {"capability": "x"}}})
        waiting = aside(http.post, "/workflows/one/execute?wait=15s", json={})
        wait_until(Task.objects.exists)
        control.cancel_run(Task.objects.get().run_id, actor="test")
        answer = waiting.result(10)
        assert (answer.status_code, answer.json()["status"]) == (201, "cancelled")

    def test_a_request_sent_again_waits_for_the_first_ones_task(self, http: httpx.Client) -> None:
        def send(wait: str) -> httpx.Response:
            headers = {"Idempotency-Key": "a"}
            return http.post(f"/tasks?wait={wait}", json={"capability": "x"}, headers=headers)

        first = send("100ms").json()
        http.put(f"/tasks/{first['id']}/cancel")
        again = send("10s")
        assert again.headers["Idempotency-Replayed"] == "true"
        assert (again.json()["id"], again.json()["status"]) == (first["id"], "cancelled")
        assert Task.objects.count() == 1

    def test_a_key_that_is_revoked_meanwhile_sees_nothing(
        self, http: httpx.Client, aside: Any
    ) -> None:
        task = http.post("/tasks", json={"capability": "x"}).json()
        waiting = aside(http.get, f"/tasks/{task['id']}?wait=2s")
        ApiKey.objects.update(revoked_at="2020-01-01T00:00:00Z")
        assert waiting.result(10).status_code == 401

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_a_revoked_key_ends_its_waits(
        self, server: Server, aside: Any, method: str, wait_until: WaitUntil
    ) -> None:
        key, text = keys.create(Project.objects.get(), "short", ["read", "write"])
        with server.client() as http, Server(server.url, text).client() as mine:
            task = http.post("/tasks", json={"capability": "x"}).json()
            if method == "GET":
                waiting = aside(mine.get, f"/tasks/{task['id']}?wait=1m")
                wait_until(lambda: ApiKey.objects.get(pk=key.pk).last_used_at)
            else:
                waiting = aside(mine.post, "/tasks?wait=1m", json={"capability": "x"})
                wait_until(lambda: Task.objects.count() == 2)
            ApiKey.objects.filter(pk=key.pk).update(revoked_at="2020-01-01T00:00:00Z")
            answer = waiting.result(15)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")

    def test_what_is_deleted_is_not_waited_for(
        self, http: httpx.Client, aside: Any, wait_until: WaitUntil
    ) -> None:
        waiting = aside(http.post, "/tasks?wait=1m", json={"capability": "x"})
        wait_until(Task.objects.exists)
        Task.objects.all().delete()
        Run.objects.all().delete()
        answer = waiting.result(15)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    def test_a_request_sent_again_whose_task_is_gone(self, http: httpx.Client) -> None:
        headers = {"Idempotency-Key": "a"}
        http.post("/tasks", json={"capability": "x"}, headers=headers)
        Task.objects.all().delete()
        Run.objects.all().delete()
        answer = http.post("/tasks?wait=15s", json={"capability": "x"}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert answer.elapsed.total_seconds() < 10

    def test_only_the_fields_that_are_asked_for(
        self, http: httpx.Client, aside: Any, wait_until: WaitUntil
    ) -> None:
        http.post("/workflows", json={"name": "one", "tasks": {"a": {"capability": "x"}}})
        path = "/workflows/one/execute?wait=15s&fields=task_count,completed_at"
        waiting = aside(http.post, path, json={})
        wait_until(Task.objects.exists)
        run_id = Task.objects.get().run_id
        wrong = http.get(f"/runs/{run_id}?wait=1m&fields=nonsense")
        assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (400, "fields")
        also = aside(http.get, f"/runs/{run_id}?wait=15s&fields=status")
        control.cancel_run(run_id, actor="test")
        started = waiting.result(10).json()
        assert set(started) == {"task_count", "completed_at"}
        assert started["completed_at"]
        assert also.result(10).json() == {"status": "cancelled"}

    def test_two_hundred_wait_without_threads_or_connections(
        self, server: Server, http: httpx.Client, wait_until: WaitUntil
    ) -> None:
        def connections() -> int:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                )
                return int(cursor.fetchone()[0])

        made = http.post("/tasks/bulk", json={"tasks": [{"capability": "x"}] * 200}).json()["tasks"]
        before = connections()

        async def trial() -> tuple[list[httpx.Response], float, int]:
            limits = httpx.Limits(max_connections=None)
            headers = {"Authorization": f"Bearer {server.key}"}
            async with httpx.AsyncClient(
                base_url=server.url, headers=headers, timeout=40, limits=limits
            ) as client:
                waiting = [
                    asyncio.create_task(client.get(f"/tasks/{task['id']}?wait=30s"))
                    for task in made
                ]
                # Others are served meanwhile, so all of them have begun to wait.
                await asyncio.sleep(0)
                health = await client.get("/tasks?limit=1")
                held = await asyncio.to_thread(connections)
                await asyncio.to_thread(_cancel_all, made)
                answers = await asyncio.gather(*waiting)
            return answers, health.elapsed.total_seconds(), held

        answers, elapsed_s, held = asyncio.run(trial())
        assert {answer.json()["status"] for answer in answers} == {"cancelled"}
        assert elapsed_s < 15
        # The eight threads of the API at most, and this test's own second one.
        assert held <= before + 9


def _cancel_all(made: list[dict[str, Any]]) -> None:
    try:
        for task in made:
            control.cancel_task(task["id"], actor="test")
    finally:
        connection.close()
