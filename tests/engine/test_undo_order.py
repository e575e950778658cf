"""Sagas: what a run that fails or is cancelled takes back, in which order, how often."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import pytest

from agents.handlers import Context, HandlerError
from opscore.config import load_config
from tasks import control
from tasks.aftermath import Aftermath
from tasks.execution import Outcome
from tasks.flow import Flow, Undo
from tasks.following import follow
from tasks.graph import Graph, Node
from tasks.models import Run, Task
from tasks.reconcile import reconcile
from tasks.submission import start_run
from tests.engine.conftest import Bench

pytestmark = pytest.mark.django_db(transaction=True)
UNDO = Undo(capability="undo", inputs={"of": "${{ result.by }}"})


@dataclass
class Saga:
    """One random run with a failure somewhere, and agents that die on the way."""

    bench: Bench
    rng: Random
    deaths: bool = False
    done: list[str] = field(default_factory=list)
    """Tasks that must be taken back, in the order of their completion."""
    taken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bench.does("work", self._work)
        self.bench.does("undo", self._undo)

    def graph(self) -> Graph:
        return Graph.of(
            [self._node(place) for place in range(self.rng.randint(3, 12))],
            epilogue=[Node(key="late", capability="work")] if self.rng.random() < 0.5 else (),
        )

    def _node(self, place: int) -> Node:
        rng = self.rng
        flow = Flow(
            undo=UNDO if rng.random() < 0.7 else None,
            for_each=list(range(rng.randint(1, 3))) if rng.random() < 0.2 else None,
        )
        needs = tuple(f"t{other}" for other in range(place) if rng.random() < 0.25)
        return Node(key=f"t{place}", capability="work", needs=needs, flow=flow)

    def finish(self, run: Run, *, steps: int) -> Run:
        """Execute in any order; after some steps the run fails, or is cancelled."""
        self.run, self.left = run, steps
        while task := self._next():
            if task.phase == "main" and self._is_over():
                self._ruin(task)
                continue
            self._note(task, self.bench.step(task))
        run.refresh_from_db()
        return run

    def _next(self) -> Task | None:
        """Return a queued task; the reconciler's own news may be lost too, so it gets some tries."""
        for _ in range(10):
            reconcile()
            queued = list(self.run.tasks.filter(status="queued").order_by("number"))
            if queued:
                return self.rng.choice(queued)
            self.run.refresh_from_db()
            if self.run.completed_at:
                return None
        return None

    def _is_over(self) -> bool:
        self.left -= 1
        return self.left == 0

    def _ruin(self, task: Task) -> None:
        if self.rng.random() < 0.3:
            control.cancel_run(self.run.id)
        else:
            self.bench.does("work", _fail)
            self.bench.step(task)
            self.bench.does("work", self._work)

    def _note(self, task: Task, outcome: Outcome) -> None:
        if outcome is Outcome.COMPLETED and task.phase == "main" and "undo" in task.flow:
            self.done.append(task.key)

    def _work(self, context: Context) -> dict[str, str]:
        self._perhaps_die()
        return {"by": context.key}

    def _undo(self, context: Context) -> None:
        assert context.key == f"undo {context.inputs['of']}"
        self._perhaps_die()
        self.taken.append(context.inputs["of"])
        self._perhaps_die()

    def _perhaps_die(self) -> None:
        if self.deaths and self.rng.random() < 0.2:
            self.bench.reborn()


def _fail(context: Context) -> None:
    raise HandlerError("no luck", type="unlucky", retryable=False)


def last_first(taken: list[str]) -> list[str]:
    """Drop what a dead agent had taken back already and its successor did again."""
    return [key for place, key in enumerate(taken) if taken[place - 1 : place] != [key]]


@pytest.fixture
def _lossy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lose a fifth of the news of transitions, and never tire of dead agents."""
    rng = Random(3)

    def follow_mostly(news: Aftermath) -> None:
        if rng.random() > 0.2:
            follow(news)

    monkeypatch.setattr(load_config(), "max_losses", 1000)
    with monkeypatch.context() as patched:
        patched.setattr("tasks.aftermath._follow", follow_mostly)
        yield


@pytest.mark.parametrize("seed", range(12))
def test_undo_runs_in_reverse_order_of_completion(bench: Bench, seed: int) -> None:
    check(Saga(bench, Random(seed)))


@pytest.mark.usefixtures("_lossy")
@pytest.mark.parametrize("seed", range(100, 112))
def test_dead_agents_and_lost_news_change_nothing_of_it(bench: Bench, seed: int) -> None:
    check(Saga(bench, Random(seed), deaths=True))


def check(saga: Saga) -> None:
    run = start_run(saga.bench.project, saga.graph(), inputs={})
    saga.finish(run, steps=saga.rng.randint(1, 8))
    wanted = saga.done[::-1] if run.status != "completed" else []
    assert last_first(saga.taken) == wanted
    undone = run.tasks.filter(phase="undo").order_by("completed_at")
    assert list(undone.values_list("key", flat=True)) == [f"undo {key}" for key in wanted]
    assert set(undone.values_list("status", flat=True)) <= {"completed"}
    for before, after in pairwise(undone):
        assert before.completed_at is not None
        assert after.started_at is not None
        assert before.completed_at <= after.started_at
    late = run.tasks.filter(phase="finally")
    assert set(late.values_list("status", flat=True)) <= {"completed"}
    assert run.completed_at is not None
    assert not run.tasks.filter(completed_at=None).exists()
