"""Functions that say too much, say odd things, or keep their agent from beating."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from opscore_sdk import Agent, AsyncClient, Client, Context, Task, TaskError
from opscore_sdk.outbox import BATCH_LETTERS, MAX_LETTERS, MAX_LINE, MAX_LINES, Outbox
from opscore_sdk.testing import MemoryPlatform, running
from tests.sdk.places import Place

ACTIVE = (["active"], ["busy"])
#: What the platform refuses above: OPSCORE_MAX_BODY_BYTES.
MAX_BODY = 4 * 1024 * 1024


@pytest.fixture
def platform() -> MemoryPlatform:
    return MemoryPlatform(session_ttl_s=600)


def done(api: Client, task: Task) -> Task:
    """Wait for a task's run and return the task."""
    api.wait(task.run_id, every_s=0.03, timeout_s=60)
    return api.task(task.id)


def told(platform: MemoryPlatform, ending: str) -> list[Any]:
    """Return the bodies that were sent to paths with this ending."""
    return [seen.body for seen in platform.seen if seen.path.endswith(ending)]


@pytest.mark.parametrize("line", ["x" * 79, "x" * 1_000_000, "\N{PILE OF POO}" * 4000])
def test_twenty_megabytes_of_log_are_cut_to_what_can_be_sent(
    platform: MemoryPlatform, line: str
) -> None:
    agent = Agent("talker")

    @agent.task("talk")
    def talk(inputs: Any, context: Context) -> str:
        text = "\n".join([line] * (20_000_000 // len(line.encode())))
        context.log(text)
        return "done"

    with platform.client() as api, running(agent, platform):
        task = api.submit("talk")
        assert done(api, task).result == "done"
    bodies = told(platform, "/logs")
    assert max(len(json.dumps(body)) for body in bodies) < MAX_BODY / 2
    lines = [one for body in bodies for one in body["lines"]]
    assert len(lines) <= MAX_LINES + 1
    assert {len(one) for one in lines[:-1]} == {min(len(line), MAX_LINE)}
    total = 20_000_000 // len(line.encode())
    if total > len(lines):
        assert lines[-1] == f"({total - len(lines) + 1} lines were dropped: too many at once)"


def test_what_waits_to_be_sent_is_bounded() -> None:
    outbox = Outbox(lambda: None)
    for _ in range(3):
        outbox.log("\n".join(["x" * 2000] * 1000), "log")
    sent = []
    while (taken := outbox.take_lines()) is not None:
        sent.append(taken[1])
    assert sent.pop() == ["(1000 lines were dropped: too many at once)"]
    letters = [sum(map(len, lines)) for lines in sent]
    assert (sum(letters), max(letters)) == (MAX_LETTERS, BATCH_LETTERS)
    # What comes back, because the platform was away, is counted again.
    outbox.put_back("log", ["x" * MAX_LETTERS])
    outbox.log("one more", "log")
    assert outbox.take_lines() == ("log", ["x" * MAX_LETTERS])
    assert outbox.take_lines() == ("log", ["(1 lines were dropped: too many at once)"])
    assert outbox.take_lines() is None


def test_odd_letters_lose_nothing_but_themselves(place: Place, api: Client) -> None:
    agent = Agent("odd")

    @agent.task("odd")
    def odd(inputs: Any, context: Context) -> None:
        context.log("a\0b")
        context.log("c\ud800d")
        context.progress(1, "half \udfff")
        raise TaskError("o\0dd", "file \udcff\0" + "x" * 9000)

    with running(agent, place.async_client):
        task = done(api, api.submit("odd"))
    assert [line.text for line in api.logs(task.id)] == ["a\N{SYMBOL FOR NULL}b", "c?d"]
    assert task.progress is not None
    assert task.progress.message == "half ?"
    assert task.error is not None
    assert task.error["type"] == "o\N{SYMBOL FOR NULL}dd"
    assert task.error["message"].startswith("file ?\N{SYMBOL FOR NULL}xxx")


def test_a_flood_of_progress_is_one_request_now_and_then(platform: MemoryPlatform) -> None:
    agent = Agent("eager")

    @agent.task("count")
    def count(inputs: Any, context: Context) -> None:
        for number in range(20_001):
            context.progress(number / 20_000, f"step {number}")

    with platform.client() as api, running(agent, platform):
        shown = done(api, api.submit("count")).progress
    assert shown is not None
    assert (shown.fraction, shown.message) == (1.0, "step 20000")
    assert len(told(platform, "/progress")) < 20


class Refusing(httpx.AsyncBaseTransport):
    """Answers as it is told at one place, else as the platform does."""

    def __init__(self, platform: MemoryPlatform, ending: str, *answers: httpx.Response) -> None:
        self._inner, self._ending, self._answers = platform.transport(), ending, list(answers)
        self.times: list[float] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith(self._ending):
            return await self._inner.handle_async_request(request)
        self.times.append(time.monotonic())
        if self._answers:
            return self._answers.pop(0)
        return await self._inner.handle_async_request(request)

    def client(self) -> AsyncClient:
        return AsyncClient("http://memory", "memory", transport=self)


class Hanging(httpx.AsyncBaseTransport):
    """Sends one heartbeat to a server that never answers, else asks the platform."""

    def __init__(self, platform: MemoryPlatform) -> None:
        self._inner, self._sockets = platform.transport(), httpx.AsyncHTTPTransport()
        self._silent = socket.create_server(("127.0.0.1", 0))
        self.hung = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.hung or not request.url.path.endswith("/heartbeat"):
            return await self._inner.handle_async_request(request)
        self.hung = True
        port = self._silent.getsockname()[1]
        request.url = request.url.copy_with(host="127.0.0.1", port=port)
        return await self._sockets.handle_async_request(request)

    async def aclose(self) -> None:
        await self._sockets.aclose()
        self._silent.close()


def test_a_heartbeat_that_hangs_does_not_cost_the_session(wait_until: Callable[..., Any]) -> None:
    hasty, agent, gate = MemoryPlatform(session_ttl_s=3), Agent("worker"), threading.Event()
    agent.task("x")(lambda inputs: gate.wait(30))
    transport = Hanging(hasty)
    client = AsyncClient("http://memory", "memory", transport=transport)
    with hasty.client() as api, running(agent, lambda: client):
        task = api.submit("x")
        wait_until(lambda: transport.hung and told(hasty, "/heartbeat"), 15)
        gate.set()
        shown = done(api, task)
    assert (shown.result, shown.losses, len(hasty.engine.sessions)) == (True, 0, 1)


def test_lines_that_are_refused_do_not_keep_back_the_others(platform: MemoryPlatform) -> None:
    agent = Agent("talker")
    large = httpx.Response(413, json={"detail": "too large"})

    @agent.task("talk")
    def talk(inputs: Any, context: Context) -> None:
        context.log("first", stream="stdout")
        context.log("second", stream="stderr")

    with platform.client() as api, running(agent, Refusing(platform, "/logs", large).client):
        task = done(api, api.submit("talk"))
        assert task.status == "completed"
        assert [line.text for line in api.logs(task.id)] == ["second"]


class Slow(httpx.AsyncBaseTransport):
    """Answers a request for lines only after the function that wrote them has ended."""

    def __init__(self, platform: MemoryPlatform) -> None:
        self._inner = platform.transport()
        self.kept, self.ended = threading.Event(), threading.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._inner.handle_async_request(request)
        if request.url.path.endswith("/logs"):
            self.kept.set()
            await asyncio.to_thread(self.ended.wait, 30)
            for _ in range(100):  # turns of the loop, in which the agent sees the end
                await asyncio.sleep(0)
        return answer


def test_lines_on_their_way_at_the_end_are_sent_once(platform: MemoryPlatform) -> None:
    agent, slow = Agent("talker"), Slow(platform)

    @agent.task("talk")
    async def talk(inputs: Any, context: Any) -> None:
        context.log("once")
        await asyncio.to_thread(slow.kept.wait, 30)
        slow.ended.set()

    client = AsyncClient("http://memory", "memory", transport=slow)
    with platform.client() as api, running(agent, lambda: client):
        task = done(api, api.submit("talk"))
        assert [line.text for line in api.logs(task.id)] == ["once"]


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(503, headers={"Retry-After": "1"}),
        httpx.Response(429, headers={"Retry-After": "1"}),
        httpx.Response(
            429,
            headers={
                "Date": "Sat, 21 Nov 2026 10:00:00 GMT",
                "Retry-After": "Sat, 21 Nov 2026 10:00:01 GMT",
            },
        ),
    ],
)
def test_a_report_waits_as_long_as_it_is_asked_to(
    platform: MemoryPlatform, answer: httpx.Response
) -> None:
    agent = Agent("worker")
    agent.task("x")(lambda inputs: 7)
    transport = Refusing(platform, "/report", answer)
    with platform.client() as api, running(agent, transport.client):
        assert done(api, api.submit("x")).result == 7
    first, second = transport.times
    assert second - first >= 1


def test_a_session_whose_first_try_is_still_at_work_is_asked_for_again(
    platform: MemoryPlatform,
) -> None:
    in_use = {"detail": "still running", "code": "idempotency_in_use"}
    agent = Agent("worker")
    agent.task("x")(lambda inputs: 7)
    transport = Refusing(platform, "/sessions", *[httpx.Response(409, json=in_use)] * 2)
    with platform.client() as api, running(agent, transport.client):
        assert done(api, api.submit("x")).result == 7
    assert len(transport.times) == 3


def test_an_async_function_that_never_awaits_loses_its_session_and_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hasty, agent = MemoryPlatform(session_ttl_s=0.6), Agent("worker")
    times: list[float] = []

    @agent.task("block")
    async def block(inputs: Any) -> int:
        times.append(time.monotonic())
        if len(times) == 1:
            time.sleep(1.2)
        return len(times)

    caplog.set_level(logging.WARNING, "opscore_sdk")
    with hasty.client() as api, running(agent, hasty):
        task = done(api, api.submit("block"))
    # The platform gave it to somebody else, here the agent's next session, and refused the first.
    assert (task.status, task.result, task.losses) == ("completed", 2, 1)
    warnings = [one.getMessage() for one in caplog.records if "without awaiting" in one.msg]
    assert any(__file__ in warning for warning in warnings)


def test_a_claim_that_is_broken_off_takes_nothing(place: Place, api: Client) -> None:
    api.register_agent("a", "remote", capabilities=["x"])
    session = api.begin_session("a").session_id

    async def broken_off() -> None:
        async with place.async_client() as line:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(line.claim(session, wait_s=20), 0.4)

    asyncio.run(broken_off())
    task = api.submit("x")
    [claimed] = api.claim(session, wait_s=5)
    assert (claimed.id, claimed.attempt, api.task(task.id).losses) == (task.id, 1, 0)


def test_an_agent_that_stops_while_tasks_come_in_loses_none(
    place: Place, api: Client, wait_until: Callable[..., Any]
) -> None:
    made: list[Task] = []
    for _ in range(4):
        agent = Agent("worker", concurrency=2)
        agent.task("x")(lambda inputs: 7)
        with running(agent, place.async_client):
            wait_until(lambda: [one.status for one in api.agents()] in ACTIVE)
            made += [api.submit("x") for _ in range(3)]
    last = Agent("worker", concurrency=8)
    last.task("x")(lambda inputs: 7)
    with running(last, place.async_client):
        assert [done(api, task).result for task in made] == [7] * len(made)
