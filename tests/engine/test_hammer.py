"""The engine's SQL under threads, with lost, doubled and stale hints, dead and zombie agents.

No Celery here: the threads take their hints from the table, late and in any order.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random
from uuid import UUID

import pytest
from django.db import connection
from django.db.models import Max

from agents import registry, sessions
from agents.models import Agent, AgentSession
from opscore.config import load_config
from opscore.database import query
from opscore.errors import ConflictError
from opscore.models import Project
from tasks.claims import claim
from tasks.control import cancel_run
from tasks.graph import Graph
from tasks.held import Claimed
from tasks.models import Run, Task
from tasks.reconcile import reconcile
from tasks.reports import Report, complete_claimed, complete_many, fail
from tasks.retries import RetryPolicy
from tasks.submission import start_run
from tests.engine.dags import diamond, random_graph, series_parallel

QUEUED = """
SELECT id, attempt FROM tasks_task
 WHERE status = 'queued' AND run_id = ANY(%(runs)s::uuid[]) ORDER BY random() LIMIT 20
"""

OUT_OF_ORDER = """
SELECT count(*) AS n FROM tasks_task t JOIN tasks_task s
    ON s.run_id = t.run_id AND s.number = ANY(t.successors)
 WHERE t.run_id = ANY(%(runs)s::uuid[]) AND s.started_at IS NOT NULL
   AND (t.completed_at IS NULL OR t.status <> 'completed' OR s.started_at < t.completed_at)
"""


@dataclass
class Storm:
    """Threads that do everything to the engine that workers, brokers and crashes do."""

    project: Project
    runs: list[UUID]
    seed: int
    cancels: bool = False
    completed: Counter[UUID] = field(default_factory=Counter)
    refused: int = 0
    stale: int = 0
    errors: list[BaseException] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def rage(self, threads: int = 8, limit_s: float = 60) -> None:
        self.give_up_at = time.monotonic() + limit_s
        workers = [threading.Thread(target=self._worker, args=(n,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if self.errors:
            raise self.errors[0]

    def _worker(self, number: int) -> None:
        rng = Random(self.seed * 1000 + number)
        try:
            agent = registry.register(
                self.project,
                name=f"storm-{self.seed}-{number}",
                kind="remote",
                capabilities=["work"],
            )[0]
            session = sessions.start(agent)
            while self._open() and time.monotonic() < self.give_up_at:
                session = self._turn(rng, agent, session.id) or session
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            connection.close()

    def _open(self) -> bool:
        return Run.objects.filter(id__in=self.runs, completed_at=None).exists()

    def _turn(self, rng: Random, agent: Agent, session_id: UUID) -> AgentSession | None:
        """Take one look at the table; return a new session when the agent died."""
        hints = query(QUEUED, {"runs": self.runs})
        hints = [hint for hint in hints if rng.random() >= 0.05]  # the others are lost
        hints += [hint for hint in hints if rng.random() < 0.10]  # these come twice
        for hint in hints:
            task = claim(hint["id"], hint["attempt"], session_id)
            if task is None:
                self.stale += 1
            elif reborn := self._meet_fate(rng.random(), agent, session_id, task):
                return reborn
        if rng.random() < 0.2:
            reconcile()
        if self.cancels and rng.random() < 0.2:
            self._cancel(rng)
        return None

    def _meet_fate(
        self, fate: float, agent: Agent, session_id: UUID, task: Claimed
    ) -> AgentSession | None:
        if fate < 0.03:
            return self._die(agent, session_id)
        if fate < 0.08:
            return self._zombie(agent, session_id, task)
        self._report(task, failed=fate < 0.12)
        return None

    def _report(self, task: Claimed, *, failed: bool) -> None:
        try:
            if failed:
                fail(task.id, task.fence, {"type": "flaky", "message": "try again"})
                return
            complete_claimed(task, {"by": str(task.fence)})
        except ConflictError:
            if not self.cancels:
                raise
            self.refused += 1
            return
        with self.lock:
            self.completed[task.id] += 1

    def _die(self, agent: Agent, session_id: UUID) -> AgentSession:
        sessions.end([session_id], "killed by the storm")
        return sessions.start(agent)

    def _zombie(self, agent: Agent, session_id: UUID, task: Claimed) -> AgentSession:
        """Let the session end, and report all the same: too late, whoever has the task now."""
        sessions.end([session_id], "silent")
        with pytest.raises(ConflictError):
            complete_claimed(task, {"by": "a zombie"})
        self.refused += 1
        return sessions.start(agent)

    def _cancel(self, rng: Random) -> None:
        try:
            cancel_run(rng.choice(self.runs))
        except ConflictError:
            self.stale += 1


def deadlocks() -> int:
    return int(
        query("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()", {})[0][
            "deadlocks"
        ]
    )


#: Often enough to survive the storm.
PERSISTENT = RetryPolicy(limit=50, initial_s=0.001, max_s=0.01)


def start_runs(
    project: Project, seed: int, count: int, retry: RetryPolicy = PERSISTENT
) -> list[UUID]:
    rng = Random(seed)
    graphs = [_graph(rng, place) for place in range(count)]
    return [start_run(project, _retried(graph, retry), inputs={}).id for graph in graphs]


def _graph(rng: Random, place: int) -> Graph:
    if place % 2:
        return random_graph(rng, rng.randint(5, 50))
    return series_parallel(rng, rng.randint(2, 6))


def _retried(graph: Graph, retry: RetryPolicy) -> Graph:
    return Graph(
        tuple(replace(vertex, node=replace(vertex.node, retry=retry)) for vertex in graph.vertices)
    )


def assert_sound(storm: Storm, *, deadlocks_before: int) -> None:
    tasks = Task.objects.filter(run_id__in=storm.runs)
    live = tasks.exclude(status__in=["completed", "failed", "cancelled", "skipped"])
    assert not live.exists(), "lost: live tasks in a run that nobody works on"
    assert set(Run.objects.filter(id__in=storm.runs).values_list("open_sinks", flat=True)) == {0}
    done = set(tasks.filter(status="completed").values_list("id", flat=True))
    assert set(storm.completed) == done, "recorded although refused, or refused although recorded"
    assert max(storm.completed.values()) == 1, "doubled"
    assert query(OUT_OF_ORDER, {"runs": storm.runs})[0]["n"] == 0
    assert deadlocks() == deadlocks_before
    assert storm.refused > 0
    assert storm.stale > 0


@pytest.fixture
def _no_poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a task lose any number of agents: the storm kills more of them than a real one."""
    monkeypatch.setattr(load_config(), "max_losses", 1000)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_no_poison")
@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_doubled_or_out_of_order(project: Project, seed: int) -> None:
    before = deadlocks()
    storm = Storm(project, start_runs(project, seed, 20), seed)
    storm.rage()
    statuses = set(Run.objects.filter(id__in=storm.runs).values_list("status", flat=True))
    assert statuses == {"completed"}
    assert_sound(storm, deadlocks_before=before)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_no_poison")
@pytest.mark.parametrize("seed", range(200, 203))
def test_runs_with_failed_tasks_end_when_their_last_task_has(project: Project, seed: int) -> None:
    before = deadlocks()
    storm = Storm(project, start_runs(project, seed, 20, RetryPolicy()), seed)
    storm.rage()
    runs = Run.objects.filter(id__in=storm.runs)
    assert set(runs.values_list("status", flat=True)) == {"completed", "failed"}
    assert_sound(storm, deadlocks_before=before)
    for run in runs.filter(status="failed"):
        assert run.tasks.filter(status="failed").exists()
        last = run.tasks.aggregate(last=Max("completed_at"))["last"]
        assert run.completed_at is not None
        assert run.completed_at >= last, "a run may not end before its last task"


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_no_poison")
@pytest.mark.parametrize("seed", range(100, 103))
def test_cancels_in_the_middle_leave_nothing_running(project: Project, seed: int) -> None:
    before = deadlocks()
    storm = Storm(project, start_runs(project, seed, 20), seed, cancels=True)
    storm.rage()
    statuses = set(Run.objects.filter(id__in=storm.runs).values_list("status", flat=True))
    assert "cancelled" in statuses
    assert statuses <= {"completed", "cancelled"}
    assert_sound(storm, deadlocks_before=before)


@pytest.mark.django_db(transaction=True)
def test_siblings_completed_in_one_batch_release_their_join_once(project: Project) -> None:
    run = start_run(project, diamond(10), inputs={})
    agent = registry.register(project, name="batcher", kind="remote", capabilities=["work"])[0]
    session = sessions.start(agent)
    complete_claimed(_claim_all(session.id, run.id)[0], 1)
    siblings = _claim_all(session.id, run.id)
    assert len(siblings) == 10
    reports = [Report(task.id, task.fence, "1") for task in siblings]
    assert complete_many(reports) == {task.id for task in siblings}
    join = Task.objects.get(run=run, number=11)
    assert (join.status, join.pending) == ("queued", 0)
    complete_claimed(_claim_all(session.id, run.id)[0], 1)
    run.refresh_from_db()
    assert (run.status, run.open_sinks) == ("completed", 0)


def _claim_all(session_id: UUID, run_id: UUID) -> list[Claimed]:
    hints = query(QUEUED, {"runs": [run_id]})
    tasks = [claim(hint["id"], hint["attempt"], session_id) for hint in hints]
    return [task for task in tasks if task is not None]
