"""The engine on real workers, a real broker and real faults."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from agents.models import AgentSession
from opscore.models import Project
from tasks.models import Run
from tests.conftest import WaitUntil
from tests.engine.conftest import error_of
from tests.real.cluster import Cluster

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
Start = Callable[..., Cluster]


@pytest.fixture
def start(tmp_path: Path, project: Project, wait_until: WaitUntil) -> Iterator[Start]:
    clusters: list[Cluster] = []

    def start(replicas: int = 2, **env: str) -> Cluster:
        cluster = Cluster(tmp_path, project, wait_until, env=env, replicas=replicas)
        clusters.append(cluster)
        cluster.start()
        return cluster

    yield start
    for cluster in clusters:
        cluster.stop()


def assert_done_once_and_in_order(run: Run, record: Path) -> None:
    assert run.status == "completed", run.error
    tasks = {task.number: task for task in run.tasks.all()}
    assert {task.status for task in tasks.values()} == {"completed"}
    started = Counter(line.split()[0] for line in record.read_text().splitlines())
    assert started == Counter({task.key: 1 for task in tasks.values()})
    for task in tasks.values():
        assert task.completed_at is not None
        for successor in task.successors:
            assert (tasks[successor].started_at or task.created_at) >= task.completed_at


@pytest.mark.parametrize("join", ["chord", "database"])
def test_chain_diamond_and_irregular_graph_run_in_order(
    start: Start, tmp_path: Path, join: str
) -> None:
    cluster = start(OPSCORE_JOIN=join)
    for shape in ("chain", "diamond", "irregular"):
        record = tmp_path / f"{shape}.record"
        run = cluster.finished(cluster.submit(shape, record=record))
        assert_done_once_and_in_order(run, record)
        # Nothing was repaired: the canvases delivered every task themselves.
        assert set(run.tasks.values_list("hints", flat=True)) == {0}


@pytest.mark.rabbitmq
@pytest.mark.xdist_group("rabbitmq")
def test_chain_and_diamond_run_on_rabbitmq(start: Start, tmp_path: Path, rabbitmq_url: str) -> None:
    cluster = start(OPSCORE_BROKER_URL=rabbitmq_url)
    for shape in ("chain", "diamond"):
        record = tmp_path / f"{shape}.record"
        run = cluster.finished(cluster.submit(shape, record=record))
        assert_done_once_and_in_order(run, record)


def assert_who_goes_first(cluster: Cluster, folder: Path) -> None:
    gate = folder / "gate"
    wide = {"shape": "wide", "gate": str(gate), "priority": 1}
    large, small, other, urgent = cluster.submit_all(
        [
            {**wide, "count": 1000, "fairness_key": "ada"},
            {**wide, "count": 10, "fairness_key": "ada"},
            {**wide, "count": 10, "fairness_key": "bob"},
            {**wide, "count": 1, "fairness_key": "ada", "priority": 9},
        ]
    )
    cluster.wait_until(large.tasks.filter(status="running").exists, 20)
    gate.touch()
    cluster.finished(small, 60)
    cluster.finished(other, 60)
    begun = large.tasks.exclude(started_at=None)
    # One was running, and one may have been fetched by the worker already.
    assert begun.filter(started_at__lt=urgent.tasks.get(key="t0").started_at).count() <= 2
    assert small.completed_at
    assert begun.filter(started_at__lt=small.completed_at).count() < 100
    assert other.completed_at
    assert begun.filter(started_at__lt=other.completed_at).count() < 100


def test_priority_and_fair_share_behind_a_thousand_tasks(start: Start, tmp_path: Path) -> None:
    assert_who_goes_first(start(replicas=1), tmp_path)


@pytest.mark.rabbitmq
@pytest.mark.xdist_group("rabbitmq")
def test_priority_and_fair_share_on_rabbitmq(
    start: Start, tmp_path: Path, rabbitmq_url: str
) -> None:
    assert_who_goes_first(start(replicas=1, OPSCORE_BROKER_URL=rabbitmq_url), tmp_path)


def test_failing_task_is_retried_until_it_succeeds(start: Start) -> None:
    cluster = start()
    run = cluster.finished(cluster.submit("flaky"))
    assert run.status == "completed"
    task = run.tasks.get(key="b")
    assert (task.attempt, task.result) == (3, 3)
    assert list(task.attempts.values_list("outcome", flat=True)) == ["failed", "failed"]


def test_failing_task_without_retries_fails_its_run(start: Start) -> None:
    cluster = start()
    run = cluster.finished(cluster.submit("failing"))
    assert run.status == "failed"
    assert error_of(run)["task"] == "b"
    assert error_of(run)["type"] == "too_early"
    assert dict(run.tasks.values_list("key", "status"))["c"] == "skipped"


def test_killed_worker_loses_nothing(start: Start, tmp_path: Path, wait_until: WaitUntil) -> None:
    cluster = start(replicas=2)
    gate, record = tmp_path / "gate", tmp_path / "record"
    run = cluster.submit("short chain", record=record, gate=gate)
    killed = cluster.pid_of_holder(run, "t0")
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: cluster.pid_of_holder(run, "t0") != killed, 10)
    gate.touch()
    cluster.finished(run)
    assert run.status == "completed"
    first = run.tasks.get(key="t0")
    assert (first.losses, first.attempt) == (1, 1)
    started = Counter(line.split()[0] for line in record.read_text().splitlines())
    assert started == {"t0": 2, "t1": 1, "t2": 1, "t3": 1}


def test_flushed_broker_loses_nothing(start: Start, tmp_path: Path, wait_until: WaitUntil) -> None:
    cluster = start(replicas=1)
    gate, record = tmp_path / "gate", tmp_path / "record"
    run = cluster.submit("diamond", record=record, gate=gate)
    cluster.pid_of_holder(run, "t0")
    redis.Redis.from_url(os.environ["OPSCORE_BROKER_URL"]).flushall()
    gate.touch()
    cluster.finished(run, 40)
    assert_done_once_and_in_order(run, record)


def test_task_that_kills_its_worker_fails_in_the_end(start: Start) -> None:
    cluster = start(replicas=2, OPSCORE_MAX_LOSSES="2")
    run = cluster.finished(cluster.submit("poison"), 40)
    assert run.status == "failed"
    assert error_of(run)["type"] == "lost"
    assert run.tasks.get().losses == 2


def test_task_over_its_time_is_killed_with_its_process(start: Start, wait_until: WaitUntil) -> None:
    cluster = start(replicas=1)
    run = cluster.submit("forever")
    pid = cluster.pid_of_holder(run, "f")
    cluster.finished(run)
    assert error_of(run)["type"] == "timeout"
    wait_until(lambda: not _exists(pid), 10)
    successors = AgentSession.objects.filter(
        agent__name__startswith="worker", ended_at=None, ready_at__isnull=False
    ).exclude(pid=pid)
    wait_until(lambda: successors.all().exists(), 20)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
