"""Addressed tasks on real workers: through queues of their own, on both brokers, with a kill."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.models import Agent, AgentSession
from opscore.models import Project
from tasks.models import Run, Sticky
from tests.conftest import WaitUntil
from tests.real.cluster import Cluster

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
Start = Callable[..., Cluster]
MIXED = """
agents:
  plain: {{kind: worker, handlers: tests.real.handlers, capabilities: [work]}}
  strong: {{kind: worker, handlers: tests.real.handlers, capabilities: [work], labels: [gpu]}}
"""
BROKERS = [
    "redis",
    pytest.param("rabbitmq", marks=[pytest.mark.rabbitmq, pytest.mark.xdist_group("rabbitmq")]),
]


@pytest.fixture
def start(tmp_path: Path, project: Project, wait_until: WaitUntil) -> Iterator[Start]:
    clusters: list[Cluster] = []

    def start(broker: str, request: pytest.FixtureRequest, **fields: Any) -> Cluster:
        env = {}
        if broker == "rabbitmq":
            env["OPSCORE_BROKER_URL"] = request.getfixturevalue("rabbitmq_url")
        cluster = Cluster(tmp_path, project, wait_until, env=env, **fields)
        clusters.append(cluster)
        cluster.start()
        return cluster

    yield start
    for cluster in clusters:
        cluster.stop()


def pids(run: Run, key: str) -> set[int]:
    tasks = run.tasks.filter(key__startswith=key)
    return {task.result["pid"] for task in tasks if task.result}


@pytest.mark.parametrize("broker", BROKERS)
def test_sticky_keys_stay_with_their_agents_until_those_are_killed(
    start: Start,
    tmp_path: Path,
    wait_until: WaitUntil,
    request: pytest.FixtureRequest,
    broker: str,
) -> None:
    cluster = start(broker, request, replicas=3)
    run = cluster.finished(cluster.submit("sticky", record=tmp_path / "calm"))
    assert run.status == "completed"
    assert [len(pids(run, key)) for key in ("red", "blue")] == [1, 1]
    assert pids(run, "red") != pids(run, "blue")
    # Nothing was repaired: the agents' own queues delivered every task.
    assert set(run.tasks.values_list("hints", flat=True)) == {0}

    gate = tmp_path / "gate"
    run = cluster.submit("sticky", record=tmp_path / "rough", gate=gate)
    wait_until(lambda: run.tasks.filter(status="running").count() == 2)
    bound = Sticky.objects.get(key="red").agent_id
    killed = AgentSession.objects.get(agent=bound, ended_at=None)
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    wait_until(lambda: run.tasks.filter(status="running").count() == 2)
    gate.touch()
    run = cluster.finished(run)
    assert run.status == "completed"
    assert run.tasks.filter(losses=1).count() == 1
    [after] = pids(run, "red")
    assert after != killed.pid
    assert len(pids(run, "blue")) == 1
    assert {task.routing["sticky"] for task in run.tasks.all() if task.routing} == {"red", "blue"}


def test_preferred_agent_does_every_task_while_it_is_free(
    start: Start, request: pytest.FixtureRequest
) -> None:
    cluster = start("redis", request, specs=MIXED)
    run = cluster.finished(cluster.submit("prefers"))
    strong = Agent.objects.get(labels=["gpu"])
    sessions = set(run.tasks.values_list("session_id", flat=True))
    assert sessions == {AgentSession.objects.get(agent=strong).pk}
