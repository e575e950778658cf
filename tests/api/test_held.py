"""Streams and waits: how many there may be, and that they end with the server."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from django.db import connections
from django.test import AsyncRequestFactory

from agents.models import AgentSession
from opscore import keys
from opscore.api import threads
from opscore.api.held import AllHeldError, Held, TooManyHeldError
from opscore.api.watching import watch
from opscore.config import load_config
from opscore.models import Project
from tasks import control
from tasks.api import OneRun
from tasks.graph import Node
from tasks.models import Task
from tasks.submission import submit_task
from tasks.waiting import WatchedRun, ended
from tests.conftest import WaitUntil
from tests.live_server import Server, free_port, web_server

#: Whatever waits in these tests would do so for much longer.
SOON_S = 10.0


class TestHeld:
    """Without a server."""

    def test_a_key_and_all_keys_have_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(load_config(), "held_per_key", 2)
        monkeypatch.setattr(load_config(), "held_requests", 3)
        held = Held()
        with ExitStack() as stack:
            for key_id in (1, 1, 2):
                held.check(key_id)
                stack.enter_context(held.hold(key_id, lambda: None))
            with pytest.raises(TooManyHeldError):
                held.check(1)
            with pytest.raises(AllHeldError):
                held.check(2)
        held.check(1)
        assert not held._by_key

    def test_the_end_ends_those_that_are_held_and_those_that_come(self) -> None:
        held, told = Held(), list[str]()
        with held.hold(1, lambda: told.append("early")):
            assert told == []
            held.end_all()
            assert told == ["early"]
            with held.hold(1, lambda: told.append("late")):
                assert told == ["early", "late"]
            with pytest.raises(AllHeldError):
                held.check(1)


@pytest.mark.django_db(transaction=True)
class TestLive:
    """At a server of its own."""

    @pytest.fixture
    def aside(self) -> Iterator[Callable[..., Future[Any]]]:
        with ThreadPoolExecutor(4) as pool:
            yield pool.submit

    def test_more_than_the_limits_is_refused_and_nothing_is_done(
        self, project: Project, wait_until: WaitUntil
    ) -> None:
        settings = {"OPSCORE_HELD_PER_KEY": "2", "OPSCORE_HELD_REQUESTS": "3"}
        with web_server(free_port(), **settings) as (url, _), ExitStack() as stack:
            mine, other = (Server(url, keys.create(project, name, ["admin"])[1]) for name in "ab")
            http, http2 = (stack.enter_context(one.client()) for one in (mine, other))
            http.post("/agents", json={"name": "a", "kind": "remote", "capabilities": ["x"]})
            session = http.post("/agents/a/sessions", json={}).json()["session_id"]
            opened = ExitStack()
            opened.enter_context(_following(mine))
            stack.enter_context(_following(mine))
            refused = [
                http.get("/agents/stream"),
                http.post("/tasks?wait=1s", json={"capability": "other"}),
                http.post(f"/sessions/{session}/claim", json={"wait_s": 1}),
            ]
            assert [answer.status_code for answer in refused] == [429] * 3
            assert {answer.headers["Retry-After"] for answer in refused} == {"5"}
            assert not Task.objects.exists()
            stack.enter_context(_following(other))
            full = http2.get("/events/stream")
            assert (full.status_code, full.json()["code"]) == (503, "unavailable")
            # Whatever does not wait is answered.
            assert http2.get("/health").status_code == 200
            assert http.post(f"/sessions/{session}/claim", json={}).status_code == 200
            opened.close()
            wait_until(
                lambda: http.post("/tasks?wait=10ms", json={"capability": "x"}).status_code == 201
            )

    def test_a_server_that_is_told_to_end_answers_what_waits(
        self, project: Project, aside: Any, wait_until: WaitUntil
    ) -> None:
        with web_server(free_port(), OPSCORE_SESSION_TTL_S="1") as (url, process):
            server = Server(url, keys.create(project, "a", ["admin"])[1])
            with server.client() as http, server.client() as other, _following(server) as lines:
                http.post("/agents", json={"name": "a", "kind": "remote", "capabilities": ["x"]})
                session = http.post("/agents/a/sessions", json={}).json()["session_id"]
                claim = aside(
                    http.post, f"/sessions/{session}/claim", json={"wait_s": 30}, timeout=40
                )
                wait = aside(
                    other.post, "/tasks?wait=40s", json={"capability": "nobody"}, timeout=50
                )
                wait_until(Task.objects.exists)
                AgentSession.objects.update(seen_at="2020-01-01T00:00:00Z")
                wait_until(lambda: AgentSession.objects.get().seen_at.year > 2020)
                process.send_signal(signal.SIGTERM)
                began = time.monotonic()
                assert process.wait(SOON_S) == 0
                assert time.monotonic() - began < SOON_S
                assert (claim.result(1).status_code, claim.result().json()) == (200, {"tasks": []})
                assert (wait.result(1).status_code, wait.result().json()["status"]) == (
                    201,
                    "queued",
                )
                # The stream ended in order, it was not cut.
                list(lines)

    def test_those_who_wait_for_one_run_share_its_body(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, text = keys.create(project, "a", ["read", "write"])
        shown: list[Any] = []
        real = WatchedRun.shown

        def noted(view: Any, ticket: Any) -> Any:
            shown.append(ticket)
            return real(view, ticket)

        monkeypatch.setattr(WatchedRun, "shown", noted)
        run_id = _submitted(project)

        async def trial() -> list[Any]:
            turns = [asyncio.create_task(_get_run(text, run_id)) for _ in range(20)]
            waiting = watch(ended)._waiting
            while len(waiting.get(run_id, ())) < len(turns):
                assert not any(turn.done() for turn in turns)
                await asyncio.sleep(0.01)
            assert shown == []
            await threads.in_thread(control.cancel_run)(run_id, actor="test")
            return await asyncio.gather(*turns)

        try:
            answers = asyncio.run(trial())
        finally:
            _close_connections()
        assert shown == [run_id]
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.content for answer in answers} == {answers[0].content}
        assert b'"status":"cancelled"' in answers[0].content
        assert answers[0]["ETag"]
        assert answers[0]["Content-Type"] == "application/json"


@contextmanager
def _following(server: Server) -> Iterator[Iterator[str]]:
    """Open a stream and read its beginning."""
    with server.client() as client, client.stream("GET", "/agents/stream") as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        assert next(lines) == "event: snapshot"
        yield lines


async def _get_run(key: str, run_id: Any) -> Any:
    headers = {"Authorization": f"Bearer {key}"}
    request = AsyncRequestFactory().get(f"/runs/{run_id}?wait=30s", headers=headers)
    return await OneRun.as_view()(request, run_id=run_id)


def _submitted(project: Project) -> Any:
    return submit_task(project, Node(key="a", capability="x")).run_id


def _close_connections() -> None:
    """Close what the API's threads opened in this process."""
    barrier = threading.Barrier(threads.THREADS)

    def close() -> None:
        barrier.wait(SOON_S)
        connections.close_all()

    for turn in [threads._pool.submit(close) for _ in range(threads.THREADS)]:
        turn.result()
