"""Waiting for work: who is woken, what is not missed, what keeps a session alive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.db import connection

from agents.models import AgentSession
from opscore.api.wakeups import Call, Found, Waiter, Wakeups
from opscore.models import ApiKey, Project
from tasks import attendance, messages
from tasks.graph import Graph, Node
from tasks.models import Message, Task, TaskProgress
from tasks.submission import start_run


class Board(Wakeups):
    """Wakeups without a database: a test announces."""

    def _listen_on(self) -> None:
        pass


def waiter(word: str, kind: Any = None, look_out: Any = None, load: float = 0.0) -> Waiter:
    return Waiter(frozenset([word]), kind or object(), word, look_out, load)


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


def test_the_least_loaded_is_woken_and_of_equals_who_waits_longest() -> None:
    async def trial() -> None:
        board = Board("x")
        half, idle, idle_too = waiter("a", 1, load=0.5), waiter("a", 1), waiter("a", 1)
        tasks = await _waiting(board, half, idle, idle_too)
        for expected in ([False, True, False], [False, True, True], [True, True, True]):
            board._announced("a")
            assert woken(half, idle, idle_too) == expected
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


@pytest.mark.django_db
class TestLookForMessages:
    """What the look for all that wait for messages finds."""

    @pytest.fixture
    def waiting(self, api: Any, session_id: str) -> attendance.Present:
        session = AgentSession.objects.select_related("agent").get()
        return attendance.present(session, ApiKey.objects.get().pk)

    def test_words_with_messages(self, api: Any, waiting: attendance.Present) -> None:
        run = api("POST", "/tasks", {"capability": "nobody"}).json()["run_id"]
        words = messages.words(waiting.agent_id, waiting.project_id, waiting.capabilities)
        send, receive = f"/runs/{run}/messages", f"/sessions/{waiting.session_id}/messages/receive"
        api("POST", send, {"to": {"capability": "other"}})
        assert attendance.look_for_messages([waiting]) == Found([], set())
        for to, word in zip(({"agent": "echo-1"}, {"capability": "echo"}), words, strict=True):
            api("POST", send, {"to": to})
            assert attendance.look_for_messages([waiting]) == Found([word], set())
            api("POST", receive, {})
            assert attendance.look_for_messages([waiting]) == Found([], set())
        # A lease that is over is announced by nobody.
        Message.objects.update(lease_until="2020-01-01T00:00:00Z")
        assert set(attendance.look_for_messages([waiting]).words) == set(words)

    def test_sessions_and_keys_that_are_no_good_any_more(
        self, api: Any, waiting: attendance.Present
    ) -> None:
        ApiKey.objects.update(expires_at="2020-01-01T00:00:00Z")
        assert attendance.look_for_messages([waiting]).tickets == {waiting}
        ApiKey.objects.update(expires_at=None)
        assert attendance.look_for_messages([waiting]).tickets == set()
        AgentSession.objects.update(ended_at="2020-01-01T00:00:00Z")
        assert attendance.look_for_messages([waiting]).tickets == {waiting}


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

    @pytest.mark.parametrize("concurrency", [4, None])
    def test_a_task_goes_to_the_least_loaded_agent_that_waits(
        self, server: Any, http: httpx.Client, concurrency: int | None
    ) -> None:
        busy, idle = (_claims_of(http, name, concurrency) for name in ("busy", "idle"))
        for _ in range(2):
            http.post("/tasks", json={"capability": "x"})
        assert len(http.post(busy, json={"limit": 2}).json()["tasks"]) == 2
        with ThreadPoolExecutor(2) as pool, server.client() as others:
            waiting = []
            for path in (busy, idle):
                body = {"limit": 2, "wait_s": 3}
                waiting.append(pool.submit(others.post, path, json=body))
                time.sleep(0.3)
            http.post("/tasks", json={"capability": "x"})
            got = [len(turn.result(20).json()["tasks"]) for turn in waiting]
        assert got == [0, 1]

    def test_a_large_claim_leaves_something_to_others_that_wait(
        self, server: Any, http: httpx.Client, project: Project
    ) -> None:
        claims = [_claims_of(http, f"a{number}", 4) for number in range(3)]
        with ThreadPoolExecutor(3) as pool, server.client() as others:
            body = {"limit": 4, "wait_s": 5}
            waiting = [pool.submit(others.post, path, json=body) for path in claims]
            time.sleep(0.5)
            graph = Graph.of([Node(key=f"t{number}", capability="x") for number in range(3)])
            start_run(project, graph, inputs={})
            got = [len(turn.result(20).json()["tasks"]) for turn in waiting]
        assert got == [1, 1, 1]


def _claims_of(http: httpx.Client, name: str, concurrency: int | None) -> str:
    body = {"name": name, "kind": "remote", "capabilities": ["x"]}
    http.post("/agents", json=body | ({"concurrency": concurrency} if concurrency else {}))
    session = http.post(f"/agents/{name}/sessions", json={}).json()["session_id"]
    return f"/sessions/{session}/claim"


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
