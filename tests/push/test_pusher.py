"""A real pusher process with real agents: results, callbacks, health, limits, sudden ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from agents import breakers, endpoints, registry
from agents.models import Agent, AgentSession
from opscore.database import query
from opscore.models import Event, Project
from tasks import reconcile
from tasks.control import cancel_task
from tasks.models import Attempt, Task
from tasks.retries import RetryPolicy
from tests.conftest import WaitUntil
from tests.push.conftest import PusherProcess, ended, submit
from tests.push.stub import StubAgent, echo, running

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
MakeAgent = Callable[..., StubAgent]


def test_tasks_are_pushed_and_the_least_loaded_agent_is_chosen(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    both = threading.Barrier(4)

    def together(task: dict[str, Any]) -> tuple[int, Any]:
        both.wait(20)
        return 200, {"status": "completed", "result": task["inputs"]}

    ann, bob = make_agent("ann", concurrency=1), make_agent("bob", concurrency=3)
    ann.behaviour = bob.behaviour = together
    pusher.active("ann", "bob")
    tasks = [submit(project, inputs={"n": n}) for n in range(12)]
    wait_until(lambda: all(map(ended, tasks)), 30)
    assert [task.result for task in tasks] == [{"n": n} for n in range(12)]
    assert (ann.forged, bob.forged) == (0, 0)
    # Each round of four needs every slot, and never one more.
    assert (ann.most_at_once, bob.most_at_once) == (1, 3)
    assert (len(ann.received), len(bob.received)) == (3, 9)


def test_waiting_task_reaches_an_agent_at_once(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    make_agent("ann")
    pusher.active("ann")
    delays = []
    for _ in range(10):
        began = time.monotonic()
        task = submit(project)
        wait_until(lambda task=task: ended(task), 10)  # type: ignore[misc]
        delays.append(time.monotonic() - began)
    # By announcement, not by the next look a second later.
    assert sorted(delays)[5] < 0.5


def test_failures_are_retried_with_the_same_idempotency_key(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    ann = make_agent("ann")
    answers = iter([(500, {}), (200, {"status": "failed", "error": {"type": "x", "message": "y"}})])
    ann.behaviour = lambda task: next(answers, (200, {"status": "completed", "result": "third"}))
    pusher.active("ann")
    task = submit(project, retry=RetryPolicy(limit=2, initial_s=0.0))
    wait_until(lambda: _woken(task), 30)
    assert task.result == "third"
    assert len({headers["Idempotency-Key"] for headers in ann.headers}) == 1
    assert len({headers["Opscore-Attempt"] for headers in ann.headers}) == 3
    errors = Attempt.objects.filter(task=task).order_by("id").values_list("error__type", flat=True)
    assert list(errors) == ["http_status", "x"]


def _woken(task: Task) -> bool:
    reconcile.wake_retries()
    return ended(task)


def test_agent_that_hangs_up_costs_a_loss_and_no_attempt(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    ann = make_agent("ann")
    hang_ups = iter(range(2))
    ann.behaviour = lambda task: (
        (0,) if next(hang_ups, None) is not None else (200, {"status": "completed"})
    )
    pusher.active("ann")
    task = submit(project)
    wait_until(lambda: ended(task), 30)
    assert (task.status, task.attempt, task.losses) == ("completed", 1, 2)
    assert Event.objects.filter(kind="task.lost", task_id=task.id).count() == 2


def test_task_that_always_loses_its_agent_fails_in_the_end(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    ann = make_agent("ann")
    ann.behaviour = lambda task: (0,)
    pusher.active("ann")
    # Else the agent's breaker would put the last try off.
    breakers.configure(project, "agent", "ann", {"min_calls": 100})
    task = submit(project)
    wait_until(lambda: ended(task), 60)
    assert task.error is not None
    assert (task.status, task.error["type"], task.losses) == ("failed", "lost", 5)


def test_agent_that_does_not_answer_is_unresponsive_until_it_does(
    pusher: PusherProcess, project: Project, loopback: None, wait_until: WaitUntil
) -> None:
    with running(StubAgent()) as stub:
        port = stub.port
        options = {"url": stub.url, "health_path": "/health"}
        agent, _ = endpoints.register(
            project, name="ann", kind="http", capabilities=["echo"], options=options
        )
        pusher.active("ann")
    task = submit(project)
    wait_until(lambda: _status("ann") == "unresponsive", 40)
    agent.refresh_from_db()
    assert "health checks failed" in agent.reason
    task.refresh_from_db()
    # It was never sent, so nothing was tried or lost.
    assert (task.status, task.attempt, task.losses) == ("queued", 1, 0)
    with running(StubAgent(), port) as stub:
        wait_until(lambda: ended(task), 30)
        assert (task.status, _status("ann")) == ("completed", "active")
        assert len(stub.received) == 1


def _status(name: str) -> str:
    return Agent.objects.get(name=name).status


def test_busy_agent_is_asked_again_later(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    ann = make_agent("ann")
    busy = iter([(429, "busy", {"Retry-After": "1"})])
    ann.behaviour = lambda task: next(busy, echo(task))
    pusher.active("ann")
    task = submit(project)
    wait_until(lambda: ended(task), 20)
    assert (task.status, task.attempt, task.losses) == ("completed", 1, 0)
    assert len(ann.received) == 2


def test_cancelled_task_is_broken_off(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    ann = make_agent("ann")
    gate = threading.Event()

    def hold(task: dict[str, Any]) -> tuple[int, Any]:
        gate.wait(30)
        return 200, {"status": "completed"}

    ann.behaviour = hold
    pusher.active("ann")
    tasks = [submit(project), submit(project)]
    wait_until(lambda: ann.received)
    # Two that arrive together may begin in either order.
    tasks.sort(key=lambda one: str(one.id) != ann.received[0]["id"])
    task, following = tasks
    try:
        cancel_task(task.id)
        # The slot is free again although the agent has not answered.
        wait_until(lambda: len(ann.received) == 2, 15)
        wait_until(lambda: Task.objects.get(id=task.id).lease_until is None, 15)
    finally:
        gate.set()
    wait_until(lambda: ended(following), 15)
    task.refresh_from_db()
    assert (task.status, following.status) == ("cancelled", "completed")


def test_killed_pusher_loses_nothing(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    ann = make_agent("ann", concurrency=4)
    gate = threading.Event()

    def slow(task: dict[str, Any]) -> tuple[int, Any]:
        gate.wait(30)
        return 200, {"status": "completed", "result": task["inputs"]}

    ann.behaviour = slow
    pusher.active("ann")
    tasks = [submit(project, inputs={"n": n}) for n in range(8)]
    wait_until(lambda: len(ann.received) == 4)
    assert pusher.stop(signal.SIGKILL) == -signal.SIGKILL
    gate.set()
    pusher.start_again()
    wait_until(lambda: all(map(ended, tasks)), 40)
    assert [task.result for task in tasks] == [{"n": n} for n in range(8)]
    assert sum(task.losses for task in tasks) == 4
    assert {task.attempt for task in tasks} == {1}
    keys = [headers["Idempotency-Key"] for headers in ann.headers]
    assert (len(keys), len(set(keys))) == (12, 8), "the agent can see what it had before"


def test_stopped_pusher_finishes_what_is_open_and_leaves_callbacks_alone(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    ann, bob = make_agent("ann"), make_agent("bob", "later")
    gate = threading.Event()

    def slow(task: dict[str, Any]) -> tuple[int, Any]:
        gate.wait(30)
        return 200, {"status": "completed"}

    ann.behaviour = slow
    bob.behaviour = lambda task: (202, {})
    pusher.active("ann", "bob")
    open_task, later = submit(project), submit(project, capability="later")
    wait_until(lambda: ann.received and bob.received)
    pusher.process.send_signal(signal.SIGTERM)
    gate.set()
    assert pusher.process.wait(20) == 0
    open_task.refresh_from_db()
    assert (open_task.status, open_task.losses) == ("completed", 0)
    assert [s.agent.name for s in AgentSession.objects.filter(ended_at=None)] == ["bob"]
    pusher.start_again()
    wait_until(lambda: AgentSession.objects.filter(agent__name="bob", pid=pusher.process.pid))
    callback = bob.received[0]["callback"]
    report = {"fence": bob.received[0]["fence"], "status": "completed", "result": "at last"}
    headers = {"Authorization": f"Bearer {callback['key']}"}
    assert httpx.post(callback["url"], json=report, headers=headers).status_code == 204
    later.refresh_from_db()
    assert (later.result, later.losses, len(bob.received)) == ("at last", 0, 1)


def test_pusher_that_is_told_twice_does_not_wait(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    ann = make_agent("ann")
    gate = threading.Event()
    ann.behaviour = lambda task: (gate.wait(30), 200, {})[1:]
    pusher.env["OPSCORE_DRAIN_S"] = "60"
    pusher.stop()
    pusher.start_again()
    pusher.active("ann")
    task = submit(project)
    wait_until(lambda: ann.received)
    pusher.process.send_signal(signal.SIGTERM)
    pusher.process.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert pusher.process.wait(20) == 0
    gate.set()
    assert time.monotonic() - began < 15
    task.refresh_from_db()
    assert (task.status, task.losses) == ("queued", 1)


def test_second_pusher_stands_by_and_takes_over(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    ann = make_agent("ann")
    pusher.active("ann")
    second = PusherProcess(pusher.log.parent, pusher.env["OPSCORE_PUBLIC_URL"], wait_until)
    try:
        pusher.stop(signal.SIGKILL)
        task = submit(project)
        wait_until(lambda: ended(task), 30)
        assert (task.status, len(ann.received)) == ("completed", 1)
    finally:
        assert second.stop() == 0


def test_paused_and_retired_agents_are_sent_nothing(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    ann, bob = make_agent("ann"), make_agent("bob")
    pusher.active("ann", "bob")
    registry.pause(registry.find(project, "ann"))
    registry.retire(registry.find(project, "bob"))
    task = submit(project)
    other = make_agent("carol")
    wait_until(lambda: ended(task), 20)
    assert (len(ann.received), len(bob.received), len(other.received)) == (0, 0, 1)
    assert _status("bob") == "terminated"
    registry.resume(registry.find(project, "ann"))
    registry.retire(registry.find(project, "carol"))
    again = submit(project)
    wait_until(lambda: ended(again), 20)
    assert len(ann.received) == 1


def test_many_slow_answers_wait_in_one_process(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    ann = make_agent("ann", concurrency=60)
    gate = threading.Barrier(60)

    def slow(task: dict[str, Any]) -> tuple[int, Any]:
        gate.wait(30)
        return 200, {"status": "completed"}

    ann.behaviour = slow
    pusher.active("ann")
    tasks = [submit(project) for _ in range(60)]
    wait_until(lambda: all(map(ended, tasks)), 40)
    assert ann.most_at_once == 60


def test_pusher_that_loses_its_connection_ends_and_says_why(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    ann = make_agent("ann")
    pusher.active("ann")
    # The connection that holds the lock: without it another one may be at work.
    query(
        """SELECT pg_terminate_backend(pid) FROM pg_locks
            WHERE locktype = 'advisory' AND classid = %(class)s""",
        {"class": 0x0B5E},
    )
    assert pusher.process.wait(20) == 1
    assert "The database went away" in pusher.log.read_text()
    assert "Traceback" not in pusher.log.read_text()
    pusher.start_again()
    task = submit(project)
    wait_until(lambda: ended(task), 30)
    assert (task.status, len(ann.received)) == ("completed", 1)
