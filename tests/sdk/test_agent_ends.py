"""How agents end: by a signal, a revoked key, or because somebody stops them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Any

import pytest

from opscore_sdk import Agent, AgentStoppedError, AuthenticationError, Client, Context, Message
from opscore_sdk.testing import MemoryPlatform, running


def test_stopping_finishes_what_runs_and_takes_nothing_new(
    hasty: MemoryPlatform, wait_until: Any
) -> None:
    agent, gate = Agent("worker"), threading.Event()

    @agent.task("slow")
    def slow(inputs: Any) -> str:
        assert gate.wait(10)
        return "finished"

    with hasty.client() as api:
        with running(agent, hasty) as thread:
            first = api.submit("slow")
            wait_until(lambda: api.task(first.id).status == "running")
            agent.stop()
            second = api.submit("slow")
            gate.set()
            thread.join(10)
            assert not thread.is_alive()
        assert (api.task(first.id).result, api.task(second.id).status) == ("finished", "queued")
        assert api.agent("worker").raw["sessions"][0]["ended_at"]


def test_stopping_finishes_the_message_at_hand(hasty: MemoryPlatform, wait_until: Any) -> None:
    agent, gate, heard = Agent("ear"), threading.Event(), list[Any]()

    @agent.on_message()
    async def hear(message: Message) -> None:
        heard.append(message.body)
        while not gate.is_set():
            await asyncio.sleep(0.01)
        heard.append("finished")

    with hasty.client() as api:
        with running(agent, hasty) as thread:
            run = _tell(api, wait_until, "first", "second")
            wait_until(lambda: heard)
            agent.stop()
            beats = _beats(hasty)
            wait_until(lambda: _beats(hasty) >= beats + 2, 5)
            gate.set()
            thread.join(10)
            assert not thread.is_alive()
        acknowledged = {row["body"]: row["acknowledged_at"] for row in api.messages(run)}
    assert heard == ["first", "finished"]
    assert acknowledged["first"]
    assert not acknowledged["second"]


def test_a_message_that_does_not_finish_in_time_comes_again(
    hasty: MemoryPlatform, wait_until: Any
) -> None:
    agent, heard = Agent("ear", grace_s=0.2), list[int]()

    @agent.on_message()
    def hear(message: Message) -> None:
        heard.append(message.deliveries)
        if message.deliveries == 1:
            threading.Event().wait()

    with hasty.client() as api:
        with running(agent, hasty):
            run = _tell(api, wait_until, "x")
            wait_until(lambda: heard)
        with running(agent, hasty):
            wait_until(lambda: api.messages(run)[0]["acknowledged_at"])
    assert heard == [1, 2]


def _tell(api: Client, wait_until: Any, *bodies: str) -> str:
    """Send messages to the agent `ear` when it is there; return their run."""
    wait_until(lambda: [one.status for one in api.agents()] == ["active"])
    run = api.submit("x").run_id
    for body in bodies:
        api.send_message(run, body, agent="ear")
    return run


def _beats(platform: MemoryPlatform) -> int:
    paths = [seen.path for seen in list(platform.seen) if seen.status == 200]
    return sum(path.endswith("/heartbeat") for path in paths)


def test_what_does_not_finish_in_time_is_given_back(hasty: MemoryPlatform, wait_until: Any) -> None:
    agent = Agent("worker", grace_s=0.2, concurrency=2)

    @agent.task("woven")
    async def woven(inputs: Any) -> None:
        await asyncio.sleep(60)

    @agent.task("deaf")
    def deaf(inputs: Any) -> None:
        time.sleep(60)

    with hasty.client() as api:
        with running(agent, hasty):
            tasks = [api.submit(word) for word in ("woven", "deaf")]
            wait_until(lambda: [row.status for row in api.tasks()] == ["running"] * 2)
        shown = [api.task(task.id) for task in tasks]
    assert [(task.status, task.attempt, task.error) for task in shown] == [("queued", 1, None)] * 2


@pytest.mark.parametrize("is_stopping", [False, True])
@pytest.mark.parametrize("places", [1, 3])
def test_a_revoked_key_cancels_the_functions_at_once(
    hasty: MemoryPlatform, wait_until: Any, places: int, is_stopping: bool
) -> None:
    agent, heard = Agent("worker", grace_s=60, concurrency=places), list[bool]()

    @agent.task("x")
    def work(inputs: Any, context: Context) -> None:
        heard.append(context.wait_cancelled(10))

    with (
        hasty.client() as api,
        contextlib.ExitStack() if is_stopping else pytest.raises(AuthenticationError),
        running(agent, hasty) as thread,
    ):
        task = api.submit("x")
        wait_until(lambda: api.task(task.id).status == "running")
        if is_stopping:
            agent.stop()
        hasty.key = "another"
        thread.join(15)
        assert not thread.is_alive()
    assert heard == [True]


def test_two_stops_cut_the_grace_time_short(hasty: MemoryPlatform, wait_until: Any) -> None:
    agent = Agent("worker", grace_s=60)

    @agent.task("woven")
    async def woven(inputs: Any) -> None:
        await asyncio.sleep(60)

    with hasty.client() as api, running(agent, hasty) as thread:
        task = api.submit("woven")
        wait_until(lambda: api.task(task.id).status == "running")
        agent.stop()
        agent.stop()
        thread.join(10)
        assert not thread.is_alive()


def test_an_agent_that_somebody_stops_ends(hasty: MemoryPlatform, wait_until: Any) -> None:
    agent = Agent("worker")
    agent.task("x")(lambda inputs: 1)
    stopped = pytest.raises(AgentStoppedError, match="was stopped")
    with hasty.client() as api, stopped, running(agent, hasty) as thread:
        wait_until(lambda: hasty.engine.sessions)
        api.stop_agent("worker")
        thread.join(10)
        assert not thread.is_alive()
