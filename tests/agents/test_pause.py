"""A paused agent takes nothing new and finishes what it has."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from agents import registry, sessions
from agents.models import Agent
from agents.queues import ensure
from agents.signals import session_ready
from opscore.celery import app
from opscore.errors import ConflictError
from opscore.models import Event, Project
from tests.agents.conftest import HANDLERS, Host
from tests.conftest import WaitUntil

pytestmark = pytest.mark.django_db(transaction=True)

StartHost = Callable[..., Host]
ECHO = f"""
agents:
  echo: {{kind: worker, handlers: {HANDLERS}, capabilities: [echo], labels: [gpu], replicas: 2}}
"""


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def touch(path: Path, seconds: float = 0.0, queue: str = "default.echo") -> None:
    app.send_task("tests.touch", args=(str(path), seconds), queue=queue)


def pause(host: Host, name: str) -> None:
    """Pause an agent and wait until its process has heard of it."""
    times = host.log(name).count("agent.paused")
    registry.pause(host.agent(name), actor="a test")
    host.wait(lambda: host.log(name).count("agent.paused") > times)


def test_paused_agent_finishes_leaves_the_rest_and_begins_again(
    start_host: StartHost, wait_until: WaitUntil, tmp_path: Path
) -> None:
    host = start_host(ECHO.replace("replicas: 2", "replicas: 1"))
    session = host.ready("echo-1")
    touch(tmp_path / "slow", 1.0)
    wait_until(lambda: text(tmp_path / "slow").startswith("started"))
    pause(host, "echo-1")
    touch(tmp_path / "later")
    wait_until(lambda: text(tmp_path / "slow") == f"finished {session.pid}")
    # What the queue holds stays there for whoever may take it.
    with app.connection_for_read() as broker:
        channel: Any = broker.default_channel
        depth = channel.queue_declare("default.echo", passive=True).message_count
    assert (depth, text(tmp_path / "later")) == (1, "")
    registry.resume(host.agent("echo-1"), actor="a test")
    wait_until(lambda: text(tmp_path / "later") == f"finished {session.pid}")
    kinds = Event.objects.filter(agent_id=session.agent_id, actor="a test").values_list("kind")
    assert [kind for (kind,) in kinds.order_by("id")] == ["agent.paused", "agent.resumed"]


def test_others_get_all_of_the_work_also_after_a_crash_and_on_new_queues(
    start_host: StartHost, project: Project, wait_until: WaitUntil, tmp_path: Path
) -> None:
    host = start_host(ECHO)
    first, second = host.ready("echo-1"), host.ready("echo-2")
    pause(host, "echo-1")
    os.kill(first.pid or 0, signal.SIGKILL)
    # It comes back paused, and a queue that appears makes no difference.
    again = host.next_session("echo-1", first)
    queue = ensure(project, "echo", ["gpu"])
    wait_until(lambda: queue in host.ready("echo-1").queues)
    for number in range(10):
        touch(tmp_path / str(number), queue=("default.echo", queue)[number % 2])
    files = [tmp_path / str(number) for number in range(10)]
    wait_until(lambda: all(text(file) == f"finished {second.pid}" for file in files))
    registry.resume(host.agent("echo-1"))
    pause(host, "echo-2")
    both = {name: tmp_path / name for name in ("default.echo", queue)}
    for name, file in both.items():
        touch(file, queue=name)
    wait_until(lambda: all(text(file) == f"finished {again.pid}" for file in both.values()))


@pytest.mark.rabbitmq
@pytest.mark.xdist_group("rabbitmq")
def test_paused_agent_leaves_rabbitmq_alone(
    start_host: StartHost, rabbitmq_url: str, wait_until: WaitUntil, tmp_path: Path
) -> None:
    host = start_host(ECHO, OPSCORE_BROKER_URL=rabbitmq_url)
    host.ready("echo-1")
    second = host.ready("echo-2")
    pause(host, "echo-1")
    with Celery(broker=rabbitmq_url, set_as_current=False) as sender:
        sender.conf.task_queue_max_priority = 10
        for number in range(6):
            file = str(tmp_path / str(number))
            sender.send_task("tests.touch", args=(file,), queue="default.echo")
        files = [tmp_path / str(number) for number in range(6)]
        wait_until(lambda: all(text(file) == f"finished {second.pid}" for file in files))


def make(project: Project, name: str) -> Agent:
    return registry.register(project, name=name, kind="remote", capabilities=["x"])[0]


def test_queues_of_a_paused_agent_count_as_not_served(project: Project) -> None:
    one, other = make(project, "one"), make(project, "other")
    for agent in (one, other):
        sessions.ready(sessions.start(agent, queues=["q", agent.name]).pk)
    registry.pause(one)
    assert set(sessions.served_slots(max_age_s=0)) == {"q", "other"}
    assert sessions.served_by_others(other.pk) == frozenset()
    registry.resume(one)
    assert set(sessions.served_slots(max_age_s=0)) == {"q", "one", "other"}


def test_resume_wakes_what_waited_for_the_agent_alone(project: Project) -> None:
    agent, woken = make(project, "one"), []

    def hear(agent: Agent, **_: object) -> None:
        woken.append(agent.name)

    session_ready.connect(hear)
    try:
        registry.pause(agent)
        registry.resume(agent)
        assert woken == []  # without a session it has nothing to wake for
        sessions.ready(sessions.start(agent).pk)
        registry.pause(agent)
        woken.clear()
        registry.resume(agent)
        registry.resume(agent)
    finally:
        session_ready.disconnect(hear)
    assert woken == ["one"]
    assert Event.objects.filter(kind="agent.resumed").count() == 2


@pytest.mark.parametrize("verb", [registry.pause, registry.retire])
def test_platform_agents_are_neither_paused_nor_stopped(
    project: Project, verb: Callable[[Agent], None]
) -> None:
    agent = Agent.objects.create(project=project, name="p", kind="worker", spec="platform")
    with pytest.raises(ConflictError, match="the platform's own work"):
        verb(agent)
    agent.refresh_from_db()
    assert (agent.desired, agent.paused) == ("running", False)
