"""Agents of the SDK: the same functions at the live platform and at the one in memory."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from opscore_sdk import (
    Agent,
    AsyncContext,
    Client,
    Context,
    ForbiddenError,
    Task,
    TaskCancelledError,
    TaskError,
)
from opscore_sdk.testing import MemoryPlatform, running
from tests.live_server import Server
from tests.sdk.places import Place


def done(api: Client, task: Task, timeout_s: float = 20) -> Task:
    """Wait for a task's run and return the task."""
    api.wait(task.run_id, every_s=0.03, timeout_s=timeout_s)
    return api.task(task.id)


def test_plain_and_async_functions_do_tasks(place: Place, api: Client) -> None:
    agent = Agent("worker", concurrency=2)
    seen: list[Any] = []

    @agent.task("plain")
    def plain(inputs: dict[str, Any], context: Context) -> Any:
        seen.append((context.task_id, context.run_id, context.attempt, context.idempotency_key))
        context.log("plain says\ntwo lines")
        context.log("and complains", stream="stderr")
        context.progress(0.5, "half")
        return {"got": inputs}

    @agent.task("woven")
    async def woven(inputs: dict[str, Any], context: AsyncContext) -> Any:
        context.log("woven")
        await asyncio.sleep(0)
        return [inputs["n"], context.attempt]

    @agent.task("bare")
    async def bare(inputs: dict[str, Any]) -> Any:
        return None

    with running(agent, place.async_client):
        first = done(api, api.submit("plain", inputs={"n": 1}))
        second = done(api, api.submit("woven", inputs={"n": 2}))
        third = done(api, api.submit("bare"))
    assert (first.status, first.result) == ("completed", {"got": {"n": 1}})
    assert (second.status, second.result) == ("completed", [2, 1])
    assert (third.status, third.result) == ("completed", None)
    assert seen == [(first.id, first.run_id, 1, first.id)]
    assert [(line.stream, line.text) for line in api.logs(first.id)] == [
        ("log", "plain says"),
        ("log", "two lines"),
        ("stderr", "and complains"),
    ]
    assert first.progress is not None
    assert (first.progress.fraction, first.progress.message) == (0.5, "half")
    assert api.agent("worker").raw["sessions"][0]["end_reason"] == "ended by its executor"


def test_failures_are_told_as_they_were_raised(place: Place, api: Client) -> None:
    agent = Agent("worker")

    @agent.task("exact")
    def exact(inputs: Any) -> None:
        raise TaskError("quota", "no credits left", retryable=False)

    @agent.task("any")
    def anything(inputs: Any) -> None:
        raise LookupError("not there")

    @agent.task("exit")
    async def leave(inputs: Any) -> None:
        raise SystemExit(3)

    @agent.task("set")
    def no_json(inputs: Any) -> Any:
        return {1, 2}

    @agent.task("nan")
    def no_number(inputs: Any) -> Any:
        return float("nan")

    with running(agent, place.async_client):
        told = {
            word: done(api, api.submit(word, retry={"limit": 1, "initial_s": 0}))
            for word in ("exact", "any", "exit", "set", "nan")
        }
    errors = {word: task.error or {} for word, task in told.items()}
    assert {task.status for task in told.values()} == {"failed"}
    assert (errors["exact"]["type"], errors["exact"]["message"]) == ("quota", "no credits left")
    assert (errors["any"]["type"], errors["any"]["message"]) == ("LookupError", "not there")
    assert "SystemExit" in errors["exit"]["message"]
    assert (errors["set"]["type"], errors["nan"]["type"]) == ("result", "result")
    assert [told[word].attempt for word in ("exact", "any", "set")] == [1, 2, 1]


def test_as_many_run_at_once_as_are_wanted(place: Place, api: Client) -> None:
    agent = Agent("worker", concurrency=3)
    together = threading.Barrier(3, timeout=15)
    now: list[int] = [0, 0]
    lock = threading.Lock()

    @agent.task("meet")
    def meet(inputs: Any) -> None:
        with lock:
            now[0] += 1
            now[1] = max(now)
        together.wait()
        with lock:
            now[0] -= 1

    with running(agent, place.async_client):
        tasks = [api.submit("meet") for _ in range(6)]
        assert [done(api, task).status for task in tasks] == ["completed"] * 6
    assert now[1] == 3


@pytest.mark.parametrize("said", ["", "4"])
def test_an_agent_says_how_many_it_does_at_once(
    place: Place, api: Client, monkeypatch: pytest.MonkeyPatch, wait_until: Any, said: str
) -> None:
    monkeypatch.delenv("OPSCORE_CONCURRENCY", raising=False)
    if said:
        monkeypatch.setenv("OPSCORE_CONCURRENCY", said)
    agent = Agent("worker")
    agent.task("x")(lambda inputs: 1)
    with running(agent, place.async_client):
        wait_until(lambda: [one.status for one in api.agents()] == ["active"])
        assert api.agent("worker").concurrency == int(said or 1)


def test_a_cancel_arrives_in_functions(hasty: MemoryPlatform, wait_until: Any) -> None:
    # With room for a third task: a claim waits meanwhile.
    agent = Agent("worker", concurrency=3)
    heard: list[str] = []

    @agent.task("plain")
    def plain(inputs: Any, context: Context) -> None:
        assert context.wait_cancelled(20)
        heard.append("plain")
        context.check()

    @agent.task("woven")
    async def woven(inputs: Any) -> None:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            heard.append("woven")
            raise

    with hasty.client() as api, running(agent, hasty):
        tasks = [api.submit(word) for word in ("plain", "woven")]
        wait_until(lambda: [row.status for row in api.tasks()] == ["running"] * 2)
        for task in tasks:
            api.cancel_task(task.id)
        wait_until(lambda: sorted(heard) == ["plain", "woven"], 5)
        # Both are told to be let go of, and both reports are refused.
        wait_until(lambda: len(_reports(hasty)) == 2, 5)
    assert {seen.status for seen in _reports(hasty)} == {409}
    assert {api_task.status for api_task in hasty.engine.tasks.values()} == {"cancelled"}


def test_a_log_that_is_refused_is_a_cancel_too(wait_until: Any) -> None:
    platform, agent = MemoryPlatform(session_ttl_s=600), Agent("worker")

    @agent.task("talk")
    def talk(inputs: Any, context: Context) -> None:
        while not context.cancelled:
            context.log("still here")
            context.wait_cancelled(0.05)
        raise TaskCancelledError

    with platform.client() as api, running(agent, platform):
        task = api.submit("talk")
        wait_until(lambda: api.logs(task.id))
        api.cancel_task(task.id)
        wait_until(lambda: _reports(platform), 5)


@pytest.mark.parametrize("words", [[], ["before"]])
def test_reports_and_logs_outlive_a_platform_that_is_away(words: list[str]) -> None:
    hasty = MemoryPlatform(session_ttl_s=8)
    agent = Agent("worker")

    @agent.task("once")
    def once(inputs: Any, context: Context) -> str:
        hasty.go_away(2.0)
        for word in words:
            context.log(word)
        return "kept"

    with hasty.client() as api, running(agent, hasty):
        task = done(api, api.submit("once"))
        assert (task.status, task.result, task.losses) == ("completed", "kept", 0)
        assert [line.text for line in api.logs(task.id)] == words
    ending = "/logs" if words else "/report"
    told = [seen.status for seen in hasty.seen if seen.path.endswith(ending) and seen.status != 200]
    assert (503 in told, told[-1]) == (True, 204)


def test_a_lost_session_is_followed_by_a_new_one(hasty: MemoryPlatform, wait_until: Any) -> None:
    agent = Agent("worker")
    calls: list[bool] = []

    @agent.task("twice")
    def twice(inputs: Any, context: Context) -> int:
        calls.append(len(calls) == 0 and context.wait_cancelled(10))
        return len(calls)

    with hasty.client() as api, running(agent, hasty):
        task = api.submit("twice")
        wait_until(lambda: api.task(task.id).status == "running")
        [session] = hasty.engine.sessions.values()
        hasty.engine.end_session(session, "ended by the test")
        assert done(api, task).result == 2
    assert calls == [True, False]
    assert len(hasty.engine.sessions) == 2


def test_an_idle_agent_lives_by_its_waiting_claim(wait_until: Any) -> None:
    platform = MemoryPlatform(session_ttl_s=0.6)
    agent = Agent("worker")
    agent.task("x")(lambda inputs: 1)
    with platform.client() as api, running(agent, platform):
        wait_until(lambda: platform.engine.sessions)
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 1.5)
        assert done(api, api.submit("x")).status == "completed"
    assert len(platform.engine.sessions) == 1


def test_an_agent_waits_for_a_platform_that_is_not_there_yet(hasty: MemoryPlatform) -> None:
    agent = Agent("worker")
    agent.task("x")(lambda inputs: 1)
    hasty.go_away(0.5)
    with running(agent, hasty), hasty.client() as api:
        assert done(api, api.submit("x")).result == 1


@pytest.mark.django_db(transaction=True)
def test_a_key_that_may_only_execute_needs_a_registered_agent(server: Server, project: Any) -> None:
    from opscore import keys
    from opscore_sdk import AsyncClient

    _, key = keys.create(project, "executor", ["agent"])
    agent = Agent("worker")
    agent.task("x")(lambda inputs: 1)
    with (
        pytest.raises(ForbiddenError, match="admin"),
        running(agent, lambda: AsyncClient(server.url, key)) as thread,
    ):
        thread.join(20)
    with Client(server.url, server.key) as api:
        api.register_agent("worker", "remote", capabilities=["x"])
        with running(agent, lambda: AsyncClient(server.url, key)):
            assert done(api, api.submit("x")).result == 1


def _reports(platform: MemoryPlatform) -> list[Any]:
    return [seen for seen in list(platform.seen) if seen.path.endswith("/report") and seen.status]


# What cannot run
