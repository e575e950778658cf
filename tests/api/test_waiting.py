"""Waiting for work: who is woken, what is not missed, what keeps a session alive."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.db import connection

from agents.models import AgentSession
from opscore.api.wakeups import Call, Found, Waiter, Wakeups
from opscore.models import ApiKey
from tasks import attendance
from tasks.models import Task, TaskProgress


class Board(Wakeups):
    """Wakeups without a database: a test announces."""

    def _listen_on(self) -> None:
        pass


def waiter(word: str, kind: Any = None, look_out: Any = None) -> Waiter:
    return Waiter(frozenset([word]), kind or object(), word, look_out)


def woken(*waiters: Waiter) -> list[bool]:
    return [one.woken.is_set() for one in waiters]


async def _waiting(board: Board, *waiters: Waiter) -> list[asyncio.Task[Call | None]]:
    tasks = [asyncio.create_task(board.wait(one, 5)) for one in waiters]
    await asyncio.sleep(0)
    return tasks


async def _left(tasks: list[asyncio.Task[Call | None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_an_announcement_wakes_one_and_who_found_something_hands_it_on() -> None:
    async def trial() -> None:
        board = Board("x")
        first, second, third, other = waiter("a", 1), waiter("a", 1), waiter("a", 1), waiter("b")
        tasks = await _waiting(board, first, other, second, third)
        board._announced("a")
        assert woken(first, second, third, other) == [True, False, False, False]
        call = await tasks[0]
        assert call is not None
        board.hand_on(call, 1, found=True)
        assert woken(second, third) == [True, False]
        # The second found nothing: the third, of the same kind, would not either.
        board.hand_on(second.call or Call(), 1, found=False)
        assert woken(third) == [False]
        await _left(tasks)

    asyncio.run(trial())


def test_who_found_nothing_hands_it_to_another_kind() -> None:
    async def trial() -> None:
        board = Board("x")
        plain, alike, labelled = waiter("a", "plain"), waiter("a", "plain"), waiter("a", "gpu")
        tasks = await _waiting(board, plain, alike, labelled)
        board._announced("a")
        board.hand_on(plain.call or Call(), "plain", found=False)
        assert woken(alike, labelled) == [False, True]
        board.hand_on(labelled.call or Call(), "gpu", found=False)
        assert woken(alike) == [False]
        await _left(tasks)

    asyncio.run(trial())


def test_who_leaves_hands_it_on_too() -> None:
    async def trial() -> None:
        board = Board("x")
        gone, here = waiter("a", 1), waiter("a", 1)
        tasks = await _waiting(board, gone, here)
        board._announced("a")
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        assert woken(here) == [True]
        await _left(tasks)

    asyncio.run(trial())


def test_nothing_is_missed_between_a_look_and_the_wait() -> None:
    async def trial() -> None:
        board = Board("x")
        since = board.mark()
        board._announced("a")
        assert await board.wait(waiter("b"), 0.01, since) is None
        assert await board.wait(waiter("a"), 5, since) == Call()
        assert await board.wait(waiter("a"), 0.01, board.mark()) is None
        board._announced(None)
        assert await board.wait(waiter("b"), 5, since) == Call()

    asyncio.run(trial())


def test_one_look_serves_all_that_wait() -> None:
    looked: list[Any] = []

    def look_out(tickets: Any) -> Found:
        looked.append(sorted(tickets))
        return Found(words=["a"], tickets=["c"])

    async def trial() -> None:
        board = Board("x")
        waiters = [waiter(word, 1, look_out) for word in ("a", "a", "b", "c")]
        tasks = await _waiting(board, *waiters)
        await board._look(look_out)
        assert woken(*waiters) == [True, False, False, True]
        await _left(tasks)

    asyncio.run(trial())
    assert looked == [["a", "a", "b", "c"]]


@pytest.mark.django_db
class TestLookOut:
    """What the look for all waiting claims finds."""

    @pytest.fixture
    def claim(self, api: Any, session_id: str) -> attendance.Present:
        session = AgentSession.objects.select_related("agent").get()
        return attendance.present(session, ApiKey.objects.get().pk)

    def test_words_with_work(self, api: Any, claim: attendance.Present) -> None:
        assert attendance.LookOut()([claim]) == Found([], set())
        api("POST", "/tasks", {"capability": "other"})
        assert attendance.LookOut()([claim]) == Found([], set())
        api("POST", "/tasks", {"capability": "echo"})
        assert attendance.LookOut()([claim]) == Found(["echo"], set())

    def test_sessions_that_ended(self, api: Any, claim: attendance.Present) -> None:
        look_out = attendance.LookOut()
        AgentSession.objects.update(seen_at="2020-01-01T00:00:00Z")
        assert look_out([claim]).tickets == set()
        assert AgentSession.objects.get().seen_at.year > 2020
        AgentSession.objects.update(ended_at="2020-01-01T00:00:00Z")
        # Not at each look: a session lives for longer than that.
        assert look_out([claim]).tickets == set()
        assert attendance.LookOut()([claim]).tickets == {claim}

    def test_keys_that_are_no_good_any_more(self, api: Any, claim: attendance.Present) -> None:
        ApiKey.objects.update(expires_at="2020-01-01T00:00:00Z")
        assert attendance.LookOut()([claim]).tickets == {claim}

    def test_agents_that_are_alike_are_of_one_kind(self, api: Any, claim: Any) -> None:
        found = AgentSession.objects.select_related("agent")
        kind = attendance.kind_of(found.get())
        body = {"name": "echo-1", "kind": "remote", "capabilities": ["echo", "more"]}
        api("POST", "/agents", body)
        # What else it offers changes nothing about the tasks of `echo`.
        assert attendance.kind_of(found.get()) == kind
        api("POST", "/agents", {**body, "labels": ["gpu"]})
        labelled = attendance.kind_of(found.get())
        api("POST", "/agents/echo-1/pause")
        assert len({kind, labelled, attendance.kind_of(found.get())}) == 3


@pytest.mark.django_db(transaction=True)
class TestLive:
    """At a live server."""

    @pytest.fixture
    def http(self, server: Any) -> Iterator[httpx.Client]:
        with server.client() as client:
            yield client

    def test_a_waiting_claim_is_a_sign_of_life_and_hears_of_its_sessions_end(
        self, server: Any, http: httpx.Client, wait_until: Any
    ) -> None:
        http.post("/agents", json={"name": "a", "kind": "remote", "capabilities": ["x"]})
        session = http.post("/agents/a/sessions", json={}).json()["session_id"]
        with ThreadPoolExecutor(1) as pool, server.client() as other:
            waiting = pool.submit(
                other.post, f"/sessions/{session}/claim", json={"wait_s": 29}, timeout=40
            )
            long_ago = "2020-01-01T00:00:00Z"
            AgentSession.objects.update(seen_at=long_ago)
            wait_until(lambda: AgentSession.objects.get().seen_at.year > 2020)
            http.delete(f"/sessions/{session}")
            answer = waiting.result(20)
        assert answer.status_code == 409
        assert answer.elapsed.total_seconds() < 20

    def test_each_of_many_tasks_wakes_an_agent(self, server: Any, http: httpx.Client) -> None:
        paths = []
        for number in range(6):
            name = f"a{number}"
            body = {"name": name, "kind": "remote", "capabilities": ["x"]}
            http.post("/agents", json=body)
            session = http.post(f"/agents/{name}/sessions", json={}).json()["session_id"]
            paths.append(f"/sessions/{session}/claim")
        with ThreadPoolExecutor(6) as pool, server.client() as others:
            waiting = [pool.submit(others.post, path, json={"wait_s": 15}) for path in paths]
            made = [http.post("/tasks", json={"capability": "x"}).json()["id"] for _ in paths]
            got = [turn.result(20).json()["tasks"] for turn in waiting]
        assert sorted(task["id"] for tasks in got for task in tasks) == sorted(made)


@pytest.mark.django_db
def test_progress_is_kept_apart_and_goes_with_its_task(api: Any, session_id: str) -> None:
    api("POST", "/tasks", {"capability": "echo"})
    [task] = api("POST", f"/sessions/{session_id}/claim", {}).json()["tasks"]
    path = f"/tasks/{task['id']}"
    assert api("GET", path).json()["progress"] is None
    told = {"fence": task["fence"], "fraction": 0.5, "message": "half"}
    with connection.cursor() as cursor:
        cursor.execute("SELECT xmin FROM tasks_task")
        before = cursor.fetchone()
        assert api("POST", f"{path}/progress", told).status_code == 204
        cursor.execute("SELECT xmin FROM tasks_task")
        assert cursor.fetchone() == before
    assert api("GET", path).json()["progress"]["fraction"] == 0.5
    assert str(TaskProgress.objects.get()).endswith("0.5 half")
    assert api("POST", f"{path}/progress", {**told, "fence": 9}).status_code == 409
    api("POST", f"{path}/report", {"fence": task["fence"], "status": "completed"})
    late = api("POST", f"{path}/progress", told)
    assert (late.status_code, "is over" in late.json()["detail"]) == (409, True)
    Task.objects.all().delete()
    assert not TaskProgress.objects.exists()
