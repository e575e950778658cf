"""A pusher inside the test: what is lost on the way to the database, slow agents, bursts."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import HTTPServer
from typing import Any

import pytest
from django.db import OperationalError, connections

from agents import endpoints, health, registry
from agents.models import Agent, AgentSession
from opscore.api import threads
from opscore.config import load_config
from opscore.database import query
from opscore.models import Project
from tasks import claims, push_request, pusher, pushing
from tasks.dispatch import READY_CHANNEL
from tasks.models import Task
from tests.conftest import WaitUntil
from tests.push.conftest import ended, submit
from tests.push.stub import StubAgent, echo, running

pytestmark = [pytest.mark.django_db(transaction=True)]
MakeAgent = Callable[..., StubAgent]


@pytest.fixture(autouse=True)
def same_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the pusher listen where the tests announce."""
    monkeypatch.setattr(load_config(), "database_url", os.environ["OPSCORE_DATABASE_URL"])


@contextmanager
def pushing_here() -> Iterator[None]:
    """Run a pusher in a thread until the block ends."""
    ready = threading.Event()
    made: list[tuple[asyncio.AbstractEventLoop, pusher.Pusher]] = []

    async def work() -> None:
        made.append((asyncio.get_running_loop(), pusher.Pusher("here")))
        ready.set()
        await made[0][1].run()

    thread = threading.Thread(target=asyncio.run, args=[work()])
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        loop, it = made[0]
        if thread.is_alive():
            loop.call_soon_threadsafe(it.stop)
            loop.call_soon_threadsafe(it.stop)
        thread.join(20)
        _close_connections()


def _close_connections() -> None:
    """Close what the threads of the pusher keep open: the tests' database is dropped at the end."""
    everyone = threading.Barrier(threads.THREADS)

    def close() -> None:
        everyone.wait(20)
        connections.close_all()

    for closed in [threads._pool.submit(close) for _ in range(threads.THREADS)]:
        closed.result(20)


def _session(name: str = "ann") -> AgentSession | None:
    return AgentSession.objects.filter(agent__name=name, ended_at=None).first()


def _begun(project: Project, host: str = "here", pid: int | None = 7) -> endpoints.Target:
    """Register an agent that nobody can reach, and begin its session."""
    endpoints.register(
        project,
        name="ann",
        kind="http",
        capabilities=["echo"],
        options={"url": "http://127.0.0.1:9/x"},
    )
    [target] = endpoints.targets()
    endpoints.answered(target, host, 1)
    AgentSession.objects.update(pid=pid)
    [target] = endpoints.targets()
    return target


def test_session_of_a_dead_pusher_ends_also_when_its_host_and_pid_are_the_same(
    project: Project, loopback: None
) -> None:
    """A container that starts again has both again."""
    target = _begun(project, "container", 7)
    task = submit(project)
    assert pushing.claim_one(target)
    assert pushing.take_over("container", 7) == set()
    task.refresh_from_db()
    assert (task.status, task.losses, _session()) == ("queued", 1, None)


def test_session_that_was_left_in_order_is_adopted_with_what_it_holds(
    project: Project, loopback: None
) -> None:
    target = _begun(project, pid=None)
    task = submit(project)
    held = pushing.claim_one(target)
    assert held
    assert pushing.take_over("there", 8) == {(task.id, held.fence)}
    session = _session()
    assert session is not None
    assert (session.host, session.pid) == ("there", 8)
    task.refresh_from_db()
    assert task.status == "running"


def test_answer_is_written_once_the_database_takes_it(
    make_agent: MakeAgent,
    project: Project,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ann, task = make_agent("ann"), submit(project)
    record, faults = pushing.record, iter(range(2))

    def record_at_last(*given: Any) -> None:
        if next(faults, None) is not None:
            raise OperationalError("server closed the connection unexpectedly")
        record(*given)

    monkeypatch.setattr(pushing, "record", record_at_last)
    with pushing_here():
        wait_until(lambda: ended(task), 15)
    assert (task.status, task.losses, len(ann.received)) == ("completed", 0, 1)


def test_attempt_that_nobody_knows_of_is_given_back(
    make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    """The answer to its claim, or to its task, was lost between pusher and database."""
    ann = make_agent("ann")
    ann.behaviour = lambda task: (503, {}, {"Retry-After": "60"})
    task = submit(project)
    with pushing_here():
        session = wait_until(_session, 15)
        assert session is not None
        # It is left alone for a minute: nobody but this test claims for it.
        wait_until(lambda: ann.received and not Task.objects.filter(status="running"), 15)
        assert claims.poll(session.pk, 1)
        wait_until(lambda: Task.objects.get(pk=task.pk).losses == 1, 15)
        assert Task.objects.get(pk=task.pk).status == "queued"
        assert _session() == session


def test_attempt_that_will_be_called_back_for_is_left_alone(
    make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    ann, bob = make_agent("ann"), make_agent("bob", "other")
    ann.behaviour = lambda task: (202, {})
    task = submit(project)
    with pushing_here():
        wait_until(lambda: ann.received, 15)
        swept = time.monotonic() + 2 * pusher.TICK_S
        wait_until(lambda: time.monotonic() > swept)
        other = submit(project, capability="other")
        wait_until(lambda: ended(other), 15)
    assert len(bob.received) == 1
    task.refresh_from_db()
    assert (task.status, task.losses) == ("running", 0)


def test_agent_that_does_one_thing_at_a_time_may_take_long(
    project: Project, loopback: None, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its health check waits behind its own task."""
    monkeypatch.setattr(pusher, "PROBE_S", 0.1)
    monkeypatch.setattr(push_request, "CONNECT_S", 0.3)
    gate = threading.Event()

    def slow(task: dict[str, Any]) -> tuple[Any, ...]:
        gate.wait(2.5)
        return echo(task)

    with running(StubAgent(behaviour=slow), server=HTTPServer) as stub:
        endpoints.register(
            project,
            name="ann",
            kind="http",
            capabilities=["echo"],
            options={"url": stub.url, "health_path": "/health"},
        )
        task = submit(project)
        with pushing_here():
            wait_until(lambda: ended(task), 20)
    assert (task.status, task.losses, len(stub.received)) == ("completed", 0, 1)


def test_drained_agent_finishes_what_it_has(project: Project, loopback: None) -> None:
    target = _begun(project)
    task = submit(project)
    assert pushing.claim_one(target)
    registry.drain(registry.find(project, "ann"))
    [target] = endpoints.targets()
    assert target.session_id, "somebody must beat for it"
    assert not endpoints.may_be_sent_to(target, 0, 1)
    health.finish_drains()
    assert Agent.objects.get().status == "draining"
    Task.objects.filter(pk=task.pk).update(status="completed")
    health.finish_drains()
    assert (Agent.objects.get().status, endpoints.targets()) == ("terminated", [])


def test_drained_agent_that_falls_silent_is_terminated(project: Project, loopback: None) -> None:
    target = _begun(project)
    registry.drain(registry.find(project, "ann"))
    endpoints.silent(target, "3 health checks failed")
    health.finish_drains()
    assert Agent.objects.get().status == "terminated"


def test_announcements_for_others_cost_no_look(
    make_agent: MakeAgent,
    project: Project,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_agent("ann")
    looks: list[float] = []
    targets = endpoints.targets

    def counted() -> list[endpoints.Target]:
        looks.append(time.monotonic())
        return targets()

    def announce(word: str) -> None:
        query("SELECT pg_notify(%(channel)s, %(word)s)", {"channel": READY_CHANNEL, "word": word})

    monkeypatch.setattr(endpoints, "targets", counted)
    with pushing_here():
        wait_until(_session, 15)
        task = submit(project)
        wait_until(lambda: ended(task), 15)
        settled, began = len(looks), time.monotonic()
        for number in range(60):
            announce(f"message to somebody {number}")
            due = time.monotonic() + pusher.ROUND_S
            wait_until(lambda due=due: time.monotonic() > due)  # type: ignore[misc]
        ticks = (time.monotonic() - began) / pusher.TICK_S
        assert len(looks) - settled < 10 + 2 * ticks
        settled = len(looks)
        announce("echo")
        wait_until(lambda: len(looks) > settled)


def test_burst_of_announcements_costs_few_looks() -> None:
    async def count() -> tuple[int, float]:
        made = pusher.Pusher("here")
        began, looks = time.monotonic(), 0
        for _ in range(300):
            made._look_soon()
            await asyncio.sleep(0.001)
            looks += made._look.is_set()
            made._look.clear()
        return looks, time.monotonic() - began

    looks, took = asyncio.run(count())
    assert 2 <= looks <= 2 + took / pusher.ROUND_S
