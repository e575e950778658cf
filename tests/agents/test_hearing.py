"""Deaf workers: alive, idle, and taking nothing from their queues."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from kombu import Connection
from kombu.transport import memory

from agents import queues, registry
from agents.hearing import Ear, Patience, Pulse, verdict
from agents.models import Agent, AgentSession
from agents.supervisor.announcer import Announcer
from agents.supervisor.prober import Prober
from opscore.celery import app, take_back
from opscore.errors import UnavailableError
from opscore.models import Event, Project
from tasks.graph import Node
from tasks.models import Task
from tasks.submission import submit_task
from tests.agents.conftest import HANDLERS, Host
from tests.agents.test_outages import Broker, broker
from tests.agents.test_plain_workers import started
from tests.conftest import WaitUntil

__all__ = ["broker"]

StartHost = Callable[..., Host]
PATIENCE = Patience(still_s=20, answer_s=10)
#: Quick enough for a test: a beat each 0.5 s, asked after 2 s, deaf 3 s later.
QUICK = {"OPSCORE_SESSION_TTL_S": "30", "OPSCORE_PROBE_S": "2"}
AGENTS = f"""
agents:
  deft: {{kind: worker, handlers: {HANDLERS}, capabilities: [echo, slow]}}
"""


def test_still_worker_is_asked_twice_before_it_is_deaf() -> None:
    ear = Ear(proven_at=0)
    assert not ear.is_due(PATIENCE, 19)
    assert ear.is_due(PATIENCE, 20)
    ear.asked(21)
    assert not ear.is_due(PATIENCE, 30)
    assert ear.is_due(PATIENCE, 31)
    ear.asked(32)
    assert not ear.is_deaf(PATIENCE, 41)
    assert ear.is_deaf(PATIENCE, 42)


def test_deaf_worker_is_asked_ever_more_seldom_and_stays_deaf_until_it_takes_something() -> None:
    ear = Ear(proven_at=0)
    asked = []
    for now in range(20, 200):
        if ear.is_due(PATIENCE, now):
            ear.asked(now)
            asked.append(now)
    assert asked == [20, 30, 40, 60, 100, 180]
    assert ear.is_deaf(PATIENCE, 181)
    ear.listen(Pulse(taken=1), 182)
    assert not ear.is_deaf(PATIENCE, 500)


@pytest.mark.parametrize(
    "pulse", [Pulse(taken=1), Pulse(at_work=True), Pulse(connected=False)], ids=str
)
def test_any_message_work_or_a_lost_connection_excuses(pulse: Pulse) -> None:
    ear = Ear(proven_at=0)
    for now in (20, 30):
        ear.asked(now)
    ear.listen(pulse, 39)
    assert not ear.is_deaf(PATIENCE, 100)
    assert not ear.is_due(PATIENCE, 58)
    assert ear.is_due(PATIENCE, 59)


def test_a_beat_without_news_excuses_nothing() -> None:
    ear = Ear(proven_at=0, taken=7)
    ear.asked(20)
    ear.asked(30)
    ear.listen(Pulse(taken=7), 39)
    assert ear.is_deaf(PATIENCE, 40)
    assert verdict(PATIENCE) == "deaf: it took no message from its own queue within 20 s"


def test_fleet_that_began_together_is_not_asked_together() -> None:
    assert [Ear(0, spread).is_due(PATIENCE, 24) for spread in (0.0, 0.2, 0.21)] == [
        True,
        True,
        False,
    ]


def test_answers_may_take_some_beats() -> None:
    assert Patience.of(still_s=20, beat_s=5) == Patience(20, 15)
    assert Patience.of(still_s=60, beat_s=5) == Patience(60, 30)


def test_question_that_no_broker_takes_gives_everybody_a_fresh_term(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prober = Prober(Announcer(), still_s=20, beat_s=1)
    ear = Ear(proven_at=0.0, questions=1, asked_at=0.0)
    session = uuid4()
    prober._ears[session] = ear
    with Celery(broker="redis://127.0.0.1:1/0", set_as_current=False) as away:
        monkeypatch.setattr("agents.questions.app", away)
        prober._ask([session], [uuid4()])
    prober._hear(now=50.0)
    assert (ear.questions, ear.proven_at) == (0, 50.0)


class Swallowing(memory.Channel):
    """A broker that takes every message and gives none back."""

    def _put(self, *_: Any, **__: Any) -> None:
        pass


class SwallowingTransport(memory.Transport):
    Channel = Swallowing


def test_broker_that_swallows_messages_is_found_out() -> None:
    with Connection(transport=memory.Transport) as sound:
        take_back(sound, 1.0)
    with (
        Connection(transport=SwallowingTransport) as connection,
        pytest.raises(UnavailableError, match="gave no message back"),
    ):
        take_back(connection, 0.05)


def test_message_that_was_taken_back_leaves_nothing_in_the_broker() -> None:
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        before = set(channel.client.keys("*"))
        take_back(connection, 3.0)
        left = set(channel.client.keys("*")) - before
    assert left == set()


def submit(project: Project, capability: str, **inputs: Any) -> Task:
    return submit_task(project, Node(key="task", capability=capability, inputs=inputs))


def is_done(task: Task) -> bool:
    task.refresh_from_db()
    return task.status == "completed"


def test_deaf_worker_is_restarted_and_does_the_next_task(
    start_host: StartHost, project: Project, wait_until: WaitUntil
) -> None:
    host = start_host(AGENTS, **QUICK)
    first = host.ready("deft-1")
    app.send_task("tests.go_deaf", queue="default.echo")
    second = host.next_session("deft-1", first)
    first.refresh_from_db()
    assert first.end_reason == "deaf: it took no message from its own queue within 3 s"
    assert host.agent("deft-1").restarts == 1
    task = submit(project, "echo")
    wait_until(lambda: is_done(task))
    assert task.session_id == second.pk
    # The platform's own agent hears all the time.
    assert host.agent("platform-1").restarts == 0


def test_busy_paused_and_still_workers_are_not_deaf(
    start_host: StartHost, project: Project, wait_until: WaitUntil
) -> None:
    host = start_host(AGENTS.replace("slow]", "slow], replicas: 3"), **QUICK)
    sessions = [host.ready(f"deft-{number}") for number in (1, 2, 3)]
    registry.pause(host.agent("deft-2"))
    task = submit(project, "slow", seconds=8)
    # Longer than a deaf one would be left alive.
    wait_until(lambda: is_done(task), 30)
    assert [host.ready(f"deft-{number}").pk for number in (1, 2, 3)] == [s.pk for s in sessions]
    assert not Event.objects.filter(kind="agent.lost").exists()
    registry.resume(host.agent("deft-2"))
    again = time.monotonic() + 6
    wait_until(lambda: time.monotonic() > again)
    assert host.ready("deft-2").pk == sessions[1].pk


def test_broker_that_was_away_makes_nobody_deaf(
    start_host: StartHost, broker: Broker, wait_until: WaitUntil, tmp_path: Path
) -> None:
    broker.start()
    host = start_host(AGENTS, OPSCORE_BROKER_URL=broker.url, **QUICK)
    session = host.ready("deft-1")
    for stop in (broker.stop, broker.start):
        stop()
        until = time.monotonic() + 6  # longer than a deaf worker is left alive
        wait_until(lambda until=until: time.monotonic() > until)  # type: ignore[misc]
    assert host.ready("deft-1").pk == session.pk
    assert not Event.objects.filter(kind="agent.lost").exists()


@pytest.fixture
def worker(project: Project, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with started(tmp_path, **QUICK) as process:
        yield process


@pytest.mark.django_db(transaction=True)
def test_deaf_worker_of_no_supervisor_says_so_until_it_hears_again(
    worker: subprocess.Popen[bytes], wait_until: WaitUntil
) -> None:
    wait_until(lambda: Agent.objects.filter(status="active").exists(), 30)
    agent, session = Agent.objects.get(), AgentSession.objects.get()
    assert queues.own(agent.pk) in session.queues
    app.send_task("tests.go_deaf", args=(8.0,), queue="default.echo")
    wait_until(lambda: Agent.objects.get().status == "unresponsive")
    assert Agent.objects.get().reason.startswith("deaf: ")
    wait_until(lambda: Agent.objects.get().status == "active", 30)
    assert AgentSession.objects.get(ended_at=None).pk == session.pk
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


@pytest.mark.rabbitmq
@pytest.mark.xdist_group("rabbitmq")
def test_deaf_worker_on_rabbitmq_is_restarted(
    start_host: StartHost, rabbitmq_url: str, wait_until: WaitUntil
) -> None:
    host = start_host(AGENTS, OPSCORE_BROKER_URL=rabbitmq_url, **QUICK)
    session = host.ready("deft-1")
    with Celery(broker=rabbitmq_url, set_as_current=False) as sender:
        sender.conf.task_queue_max_priority = 10
        sender.send_task("tests.go_deaf", queue="default.echo")
    host.next_session("deft-1", session)
    session.refresh_from_db()
    assert session.end_reason.startswith("deaf: ")
