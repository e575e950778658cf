"""The constructs under the storm: lists, joins, limits, loops, epilogues, pauses, lost news."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

import pytest
from django.db import connection, transaction

from agents.models import Agent, AgentSession
from opscore.config import load_config
from opscore.database import query
from opscore.errors import ConflictError
from opscore.models import Project
from tasks import control, items
from tasks.aftermath import Aftermath
from tasks.flow import JOINS, ON_ITEM_FAILURE, Catch, Concurrency, Flow, Repeat, Undo
from tasks.following import follow
from tasks.graph import Graph, Node
from tasks.held import Claimed
from tasks.models import Run, Task
from tasks.reconcile import reconcile
from tasks.reports import complete_claimed, fail
from tasks.submission import start_run
from tests.conftest import WaitUntil
from tests.engine.test_hammer import PERSISTENT, Storm, deadlocks

#: A key names its own limit: `slots-2` is for two at once.
OVER_LIMIT = """
SELECT limit_key AS key, count(*) AS n FROM tasks_task
 WHERE status IN ('queued', 'running') AND limit_key LIKE 'slots-%%'
 GROUP BY limit_key HAVING count(*) > right(limit_key, 1)::int
UNION ALL
SELECT limit_key, count(*) FROM tasks_run
 WHERE status IN ('running', 'paused') AND limit_key LIKE 'slots-%%'
 GROUP BY limit_key HAVING count(*) > right(limit_key, 1)::int
"""

# Everything that ever started a task, against the ends of what it needs.
OUT_OF_ORDER = """
WITH start AS (
  SELECT s.run_id, s.number, s.phase, s."join",
         least(s.started_at, (SELECT min(a.started_at) FROM tasks_attempt a
                               WHERE a.task_id = s.id)) AS at
    FROM tasks_task s WHERE s.run_id = ANY(%(runs)s::uuid[])),
need AS (
  SELECT s.run_id, s.number, s."join", s.at,
         min(t.completed_at) FILTER (WHERE t.status = 'completed') AS first_success,
         max(t.completed_at) AS last_end, bool_and(t.completed_at IS NOT NULL) AS over
    FROM start s JOIN tasks_task t ON t.run_id = s.run_id AND s.number = ANY(t.successors)
   WHERE s.at IS NOT NULL GROUP BY s.run_id, s.number, s."join", s.at)
SELECT run_id, number FROM need
 WHERE CASE WHEN "join" = 'any' THEN first_success IS NULL OR first_success > at
            ELSE NOT over OR last_end > at END
UNION ALL
SELECT late.run_id, late.number
  FROM start late JOIN tasks_task main ON main.run_id = late.run_id AND main.phase = 'main'
 WHERE late.phase <> 'main' AND late.at < main.completed_at AND main.parent_id IS NULL
"""

# A run that ended before one of its tasks; what a failed list cancels behind itself aside.
ENDED_EARLY = """
SELECT r.id, r.status, r.phase, t.key, t.status AS ended, t.completed_at - r.completed_at AS late
  FROM tasks_run r JOIN tasks_task t ON t.run_id = r.id
 WHERE r.id = ANY(%(runs)s::uuid[]) AND t.parent_id IS NULL AND t.completed_at > r.completed_at
"""


@dataclass
class Weather(Storm):
    """The storm over graphs with every construct."""

    over_limit: list[str] = field(default_factory=list)

    def _turn(self, rng: Random, agent: Agent, session_id: UUID) -> AgentSession | None:
        reborn = super()._turn(rng, agent, session_id)
        self.over_limit += [f"{row['key']}: {row['n']}" for row in query(OVER_LIMIT, {})]
        if rng.random() < 0.2:
            self._pause_or_resume(rng)
        if rng.random() < 0.1:
            self._cancel_task(rng)
        if rng.random() < 0.3:
            reconcile()
        return reborn

    def _pause_or_resume(self, rng: Random) -> None:
        paused = Run.objects.filter(id__in=self.runs, status="paused").values_list("id", flat=True)
        for run_id in paused:
            if rng.random() < 0.5:
                self._try(lambda run_id=run_id: control.resume_run(run_id))
        if rng.random() < 0.3:
            self._try(lambda: control.pause_run(rng.choice(self.runs)))

    def _cancel_task(self, rng: Random) -> None:
        live = Task.objects.filter(run_id__in=self.runs, completed_at=None)
        if ids := list(live.order_by("?").values_list("id", flat=True)[:1]):
            self._try(lambda: control.cancel_task(ids[0]))

    def _cancel(self, rng: Random) -> None:
        if rng.random() < 0.3:
            force = rng.random() < 0.2
            self._try(lambda: control.cancel_run(rng.choice(self.runs), force=force))

    def _try(self, verb: object) -> None:
        try:
            verb()  # type: ignore[operator]
        except ConflictError:
            self.stale += 1

    def _report(self, task: Claimed, *, failed: bool) -> None:
        try:
            done = self._fail(task) if failed else complete_claimed(task, {"by": str(task.fence)})
        except ConflictError:
            self.refused += 1
            return
        if done:
            with self.lock:
                self.completed[task.id] += 1

    def _fail(self, task: Claimed) -> bool:
        """Return whether the failure was caught: the task is completed then."""
        final = task.fence % 2 == 0
        goes_on = fail(task.id, task.fence, {"type": "x", "message": "y", "retryable": not final})
        return goes_on and final


def random_flow(rng: Random) -> Flow:
    slots = rng.choice((None, None, None, 1, 2, 3))
    size = rng.randint(0, 6) if rng.random() < 0.25 else None
    return Flow(
        condition=rng.choice(("", "", "", "true", "false")),
        repeat=rng.choice((None, None, None, Repeat(max=2))),
        catch=rng.choice((None, None, Catch(result="caught"))),
        concurrency=Concurrency(key=f"slots-{slots}", limit=slots) if slots else None,
        on_item_failure=rng.choice(ON_ITEM_FAILURE),
        undo=rng.choice((None, None, None, Undo(capability="work"))),
        for_each=None if size is None else list(range(size)),
        max_parallel=rng.choice((0, 1, 3)),
    )


def random_nodes(rng: Random, prefix: str, size: int) -> list[Node]:
    return [
        Node(
            key=f"{prefix}{place}",
            capability="work",
            needs=tuple(
                f"{prefix}{other}"
                for other in range(max(0, place - 6), place)
                if rng.random() < 0.25
            ),
            join=rng.choice(("all_success", *JOINS)),
            retry=PERSISTENT,
            priority=rng.randint(0, 9),
            flow=random_flow(rng),
        )
        for place in range(size)
    ]


def start_runs(project: Project, seed: int, count: int) -> list[UUID]:
    rng = Random(seed)
    limit = Concurrency(key="slots-3", limit=3)
    return [
        start_run(
            project,
            Graph.of(
                random_nodes(rng, "t", rng.randint(3, 16)),
                epilogue=random_nodes(rng, "f", rng.choice((0, 0, 2))),
            ),
            inputs={},
            concurrency=limit if place % 3 == 0 else None,
        ).id
        for place in range(count)
    ]


@pytest.fixture
def _lossy(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = Random(7)

    def follow_mostly(news: Aftermath) -> None:
        if rng.random() > 0.2:
            follow(news)

    monkeypatch.setattr("tasks.aftermath._follow", follow_mostly)
    monkeypatch.setattr(load_config(), "max_losses", 1000)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_lossy")
@pytest.mark.parametrize("seed", range(4))
def test_constructs_lose_and_double_nothing(project: Project, seed: int) -> None:
    before = deadlocks()
    storm = Weather(project, start_runs(project, seed, 16), seed, cancels=seed % 2 == 1)
    storm.rage()
    assert_sound(storm)
    assert deadlocks() == before


def assert_sound(storm: Weather) -> None:
    tasks = Task.objects.filter(run_id__in=storm.runs)
    runs = Run.objects.filter(id__in=storm.runs)
    lost = tasks.exclude(status__in=["completed", "failed", "cancelled", "skipped"])
    assert not list(runs.filter(completed_at=None).values_list("status", "phase", "open_sinks"))
    assert not list(lost.values_list("run__status", "key", "status", "waits_for"))
    assert set(runs.values_list("open_sinks", flat=True)) == {0}
    # A list is completed by the platform, everything else by a report.
    done = tasks.filter(status="completed", item_count=None).values_list("id", flat=True)
    assert storm.completed == Counter(done), "recorded although refused, or the other way round"
    assert not query(OUT_OF_ORDER, {"runs": storm.runs})
    assert not query(ENDED_EARLY, {"runs": storm.runs})
    assert storm.over_limit == []
    assert storm.refused > 0
    assert storm.stale > 0


BLOCKED = "SELECT 1 AS x FROM pg_locks WHERE NOT granted"


def meanwhile(wait_until: WaitUntil, first: Callable[[], object], then: Callable[[], None]) -> None:
    """Do `first` in a transaction, and commit it when `then`, in a thread, waits for its locks."""

    def other() -> None:
        try:
            then()
        finally:
            connection.close()

    thread = threading.Thread(target=other)
    with transaction.atomic():
        first()
        thread.start()
        wait_until(lambda: query(BLOCKED, {}))
    thread.join()


def listing(project: Project) -> tuple[Run, UUID]:
    """Return a run with a list of three of whose items nothing is known yet."""
    node = Node(key="each", capability="work", flow=Flow(for_each=[1, 2, 3]))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tasks.items.gather", lambda task_id: None)
        run = start_run(project, Graph.of([node]), inputs={})
    return run, run.tasks.get(key="each").id


@pytest.mark.django_db(transaction=True)
def test_a_list_that_two_expand_at_once_is_not_over(
    project: Project, wait_until: WaitUntil
) -> None:
    run, each = listing(project)
    meanwhile(wait_until, lambda: items.gather(each), lambda: items.gather(each))
    assert dict(run.tasks.values_list("key", "status")) == {
        "each": "waiting",
        "each[0]": "queued",
        "each[1]": "queued",
        "each[2]": "queued",
    }


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("whole", [True, False])
def test_a_cancel_finds_the_items_that_are_being_made(
    project: Project, wait_until: WaitUntil, whole: bool
) -> None:
    run, each = listing(project)
    cancel = (lambda: control.cancel_run(run.id)) if whole else (lambda: control.cancel_task(each))
    meanwhile(wait_until, lambda: items.gather(each), cancel)
    assert set(run.tasks.values_list("status", flat=True)) == {"cancelled"}
    run.refresh_from_db()
    assert run.status == "cancelled"
