"""The line between an agent and its supervisor, and what happens when one end is gone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections

from agents import runtime, sessions
from agents.models import Agent
from agents.signals import fallback_tick
from agents.supervisor import announcer
from agents.supervisor.agent import Lifeline
from agents.supervisor.announcer import Announcer
from agents.supervisor.ledger import Ledger
from agents.supervisor.wire import Wire
from opscore.config import ROOT, load_config
from opscore.models import Project


class Consumer:
    """Takes note of what Celery's consumer would take up."""

    def __init__(self) -> None:
        self.queues: list[str] = []
        self.consumes = True
        self.declared: list[str] = []
        self.task_consumer: Consumer | None = self

    def add_task_queue(self, queue: str) -> None:
        self.queues.append(queue)
        self.consumes = True

    def consume(self) -> None:
        self.consumes = True

    def cancel(self) -> None:
        self.consumes = False
        self.declared.clear()

    def consuming_from(self, queue: str) -> bool:
        return self.consumes

    def declare(self) -> None:
        self.declared += self.queues


def test_agent_takes_up_the_queues_that_it_hears_of() -> None:
    controllers, agents_end = socket.socketpair()
    line = Lifeline(agents_end, beat_s=60)
    consumer: Any = Consumer()
    supervisor = Wire(controllers)
    assert supervisor.send({"queues": ["default.work", "default.work+gpu"]})
    assert supervisor.send({"other": "news"})
    line._hear(consumer)
    assert consumer.queues == ["default.work", "default.work+gpu"]
    assert consumer.consumes
    line._hear(consumer)
    supervisor.send({"paused": True})
    line._hear(consumer)
    assert not consumer.consumes
    # A queue that appears meanwhile waits like the others.
    supervisor.send({"queues": ["default.work+tpu"]})
    line._hear(consumer)
    assert not consumer.consumes
    supervisor.send({"paused": False})
    line._hear(consumer)
    assert consumer.consumes
    line.ready()
    line.beat()
    heard = [message["news"] for message in supervisor.receive()]
    assert heard == ["ready", "beat"]
    signal.set_wakeup_fd(-1)
    for end in (controllers, agents_end, line._wake, line._woken):
        end.close()


def test_pause_between_two_connections_waits_for_the_next() -> None:
    consumer = Consumer()
    consumer.task_consumer = None
    runtime.consume(consumer, paused=True)
    assert consumer.consumes


ORPHANED = """
import socket
import django
django.setup()
from agents.supervisor.agent import Lifeline
controllers, agents_end = socket.socketpair()
line = Lifeline(agents_end, beat_s=60)
controllers.close()
line._hear(None)
print("not reached")
"""


def test_agent_ends_when_its_controller_is_gone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ORPHANED],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "opscore.settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.django_db(transaction=True)
def test_announcements_without_end_do_not_hold_up_the_ticks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(announcer, "TICK_S", 0.01)
    ticked = threading.Event()
    busy = Announcer()

    def again() -> None:
        if not ticked.is_set():
            busy.put(again)

    def tick(**_: Any) -> None:
        ticked.set()

    fallback_tick.connect(tick)
    busy.put(again)
    busy.start()
    try:
        assert ticked.wait(10)
    finally:
        ticked.set()
        fallback_tick.disconnect(tick)
        busy.put(connections.close_all)
        busy.stop()


@pytest.mark.django_db
def test_ledger_without_a_database_yet_shows_nothing(tmp_path: Path) -> None:
    Ledger(load_config(), "nowhere", {}, Announcer())._show(None)


@pytest.mark.django_db
def test_ready_agent_that_was_removed_meanwhile_is_not_announced(project: Project) -> None:
    sessions.announce_ready(uuid4())
    agent = Agent.objects.create(project=project, name="gone", kind="remote")
    session = sessions.start(agent)
    sessions.end([session.id], "over")
    assert sessions.ready(session.id) is False
