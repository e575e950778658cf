"""Joins, conditions, catches, loops, pauses and `finally` against a model, step by step.

A fifth of the news that follows a transition is lost; a reconcile must make good for it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agents import registry, sessions
from opscore.errors import ConflictError
from opscore.models import Project
from tasks import control, reconcile
from tasks.aftermath import Aftermath
from tasks.claims import claim
from tasks.flow import JOINS, Catch, Flow, Repeat
from tasks.following import follow
from tasks.graph import Graph, Node, Vertex
from tasks.models import Run, Task
from tasks.reports import complete, fail
from tasks.retries import RetryPolicy
from tasks.states import RUN
from tasks.submission import start_run
from tests.engine.test_joins import holds

LIVE = {"pending", "queued", "running", "retrying"}
NEVER_S = 1e9


class Gossip:
    """Tells a follower the news of the engine's transitions, but for a fifth of them."""

    def __init__(self) -> None:
        self.rng = Random(1)
        self.lossy = True
        self.lost = False

    def __call__(self, news: Aftermath) -> None:
        if self.lossy and self.rng.random() < 0.2:
            self.lost = True
        else:
            follow(news)

    def make_good(self) -> None:
        """Let the reconciler find out for itself."""
        self.lossy = False
        reconcile.reconcile()
        self.lossy, self.lost = True, False


gossip = Gossip()


class Model:
    """What the engine promises, written down as plainly as possible."""

    def __init__(self, graph: Graph) -> None:
        self.spots = {vertex.number: vertex for vertex in graph.vertices}
        self.tasks = dict.fromkeys(self.spots, "pending")
        self.tries = dict.fromkeys(self.spots, 0)
        self.turns = dict.fromkeys(self.spots, 1)
        self.due: set[int] = set()
        self.early: set[int] = set()
        self.phase = "main"
        self.run = "running"
        self.verdict = "completed"
        self.release()

    # -------------------------------------------------------- what happens
    def complete(self, number: int) -> None:
        repeat = self.flow(number).repeat
        if repeat and self.turns[number] < repeat.max:
            self.turns[number] += 1
            self.tries[number] = 0
            self.park(number, at_once=repeat.delay_s == 0)
        else:
            self.end(number, "completed")

    def fail(self, number: int, *, retryable: bool) -> bool:
        """Return whether the task goes on or was caught."""
        self.tries[number] += 1
        if retryable and self.tries[number] <= self.spots[number].node.retry.limit:
            self.park(number, at_once=False)
            return True
        caught = self.flow(number).catch is not None
        self.end(number, "completed" if caught else "failed")
        return caught

    def park(self, number: int, *, at_once: bool) -> None:
        self.tasks[number] = "retrying"
        if at_once:
            self.due.add(number)
        self.release()

    def end(self, number: int, status: str) -> None:
        if status == "cancelled" and self.tasks[number] == "pending":
            self.early.add(number)
        self.tasks[number] = status
        if status in {"failed", "cancelled"} and self.verdict == "completed":
            self.verdict = status
        self.release()

    def cancel(self) -> list[int]:
        """Cancel the run; return the tasks that end with it."""
        self.run = "cancelling"
        gone = [n for n in self.live() if self.spots[n].phase == "main"]
        self.tasks |= dict.fromkeys(gone, "cancelled")
        if self.phase == "main":
            self.early.difference_update(n for n in self.spots if self.spots[n].phase == "main")
        self.release()
        return gone

    # -------------------------------------------------------- what follows
    def release(self) -> None:
        while self.run != "paused" and self.run not in RUN.terminal and self.step():
            pass

    def step(self) -> bool:
        """Decide what may be decided; return whether anything changed."""
        before = dict(self.tasks), self.phase, self.run
        for number in self.due & set(self.in_status("retrying")):
            self.tasks[number] = "queued"
        self.due.clear()
        for number in self.in_status("pending"):
            if self.has_begun(number) and (fate := self.fate(number)):
                self.tasks[number] = fate
        if all(self.is_over(n) for n, spot in self.spots.items() if spot.phase == self.phase):
            if self.phase == "main" and any(v.phase == "finally" for v in self.spots.values()):
                self.phase = "finally"
            else:
                self.run = "cancelled" if self.run == "cancelling" else self.verdict
        return before != (self.tasks, self.phase, self.run)

    def fate(self, number: int) -> str:
        """Return what a pending task becomes; '' while it must wait."""
        spot = self.spots[number]
        ends = [self.tasks[need] for need in spot.needs if self.is_over(need)]
        first = spot.node.join == "any" and "completed" in ends
        if len(ends) < len(spot.needs) and not first:
            return ""
        runs = holds(spot.node.join, ends) and spot.node.flow.condition != "false"
        return "queued" if runs else "skipped"

    def is_over(self, number: int) -> bool:
        """A task that was cancelled early counts only when all that it waited for has ended."""
        if self.tasks[number] in LIVE:
            return False
        needs = self.spots[number].needs
        waits = number in self.early
        return not waits or (self.has_begun(number) and all(map(self.is_over, needs)))

    def has_begun(self, number: int) -> bool:
        return self.spots[number].phase == "main" or self.phase == "finally"

    # -------------------------------------------------------- questions
    def flow(self, number: int) -> Flow:
        return self.spots[number].node.flow

    def in_status(self, *statuses: str) -> list[int]:
        return sorted(n for n, now in self.tasks.items() if now in statuses)

    def live(self) -> list[int]:
        return self.in_status(*LIVE)

    def open_sinks(self) -> int:
        return sum(self.is_sink(v) and not self.is_over(v.number) for v in self.spots.values())

    def is_sink(self, spot: Vertex) -> bool:
        joins = {self.spots[below].node.join for below in spot.successors}
        return spot.phase == self.phase and joins <= {"any"}


def random_nodes(rng: Random, prefix: str, size: int) -> list[Node]:
    return [
        Node(
            key=f"{prefix}{n}",
            capability="work",
            needs=tuple(f"{prefix}{m}" for m in range(n) if rng.random() < 0.35),
            retry=RetryPolicy(limit=rng.choice((0, 1)), initial_s=NEVER_S, max_s=NEVER_S, jitter=0),
            join=rng.choice(("all_success", *JOINS)),
            flow=Flow(
                condition=rng.choice(("", "", "true", "false")),
                catch=rng.choice((None, None, Catch(result="caught"))),
                repeat=rng.choice((None, None, Repeat(max=2), Repeat(max=3, delay_s=NEVER_S))),
            ),
        )
        for n in range(size)
    ]


class Engine(RuleBasedStateMachine):
    """The real verbs on the real database."""

    @initialize(seed=st.integers(0, 10_000))
    def start(self, seed: int) -> None:
        self.rng = Random(seed)
        project = Project.objects.get_or_create(slug="default")[0]
        self.agent = registry.register(project, name="model", kind="remote", capabilities=["work"])[
            0
        ]
        self.session = sessions.start(self.agent).id
        late = self.rng.choice((0, 0, 1, 3))
        graph = Graph.of(
            random_nodes(self.rng, "t", self.rng.randint(1, 7)),
            epilogue=random_nodes(self.rng, "f", late),
        )
        self.model = Model(graph)
        self.run_id = start_run(project, graph, inputs={}).id
        self.ids = dict(Task.objects.filter(run=self.run_id).values_list("number", "id"))
        self.fences: dict[int, int] = {}
        self.old_reports: list[Callable[[], Any]] = []

    def pick(self, *statuses: str) -> int:
        return self.rng.choice(self.model.in_status(*statuses))

    @precondition(lambda self: self.model.run != "paused" and self.model.in_status("queued"))
    @rule()
    def claims(self) -> None:
        number = self.pick("queued")
        task = Task.objects.get(id=self.ids[number])
        held = claim(task.id, task.attempt, self.session)
        assert held is not None
        assert claim(task.id, task.attempt, self.session) is None, "a doubled hint claims nothing"
        self.fences[number] = held.fence
        self.model.tasks[number] = "running"

    @precondition(lambda self: self.model.run == "paused")
    @rule()
    def claims_nothing_while_paused(self) -> None:
        for task in Task.objects.filter(run=self.run_id, status="queued"):
            assert claim(task.id, task.attempt, self.session) is None

    @precondition(lambda self: self.model.in_status("running"))
    @rule()
    def completes(self) -> None:
        number = self.pick("running")
        complete(self.ids[number], self.fences[number], {"n": number})
        self.remember(number)
        self.model.complete(number)

    @precondition(lambda self: self.model.in_status("running"))
    @rule(retryable=st.booleans())
    def fails(self, retryable: bool) -> None:
        number = self.pick("running")
        error = {"type": "x", "message": "y", "retryable": retryable}
        goes_on = fail(self.ids[number], self.fences[number], error)
        assert goes_on == self.model.fail(number, retryable=retryable)
        self.remember(number)

    @precondition(lambda self: self.model.run != "paused" and self.model.in_status("retrying"))
    @rule()
    def wakes(self) -> None:
        number = self.pick("retrying")
        past = timezone.now() - timedelta(seconds=1)
        Task.objects.filter(id=self.ids[number]).update(wake_at=past)
        gossip.make_good()
        self.model.tasks[number] = "queued"

    @rule()
    def loses_the_agent(self) -> None:
        for number in self.model.in_status("running"):
            self.remember(number)
            self.model.tasks[number] = "queued"
        sessions.end([self.session], "killed")
        self.session = sessions.start(self.agent).id
        Task.objects.filter(run=self.run_id).update(losses=0)

    @precondition(lambda self: self.old_reports)
    @rule()
    def reports_late(self) -> None:
        with pytest.raises(ConflictError):
            self.rng.choice(self.old_reports)()

    @precondition(lambda self: self.model.run != "paused" and self.model.live())
    @rule()
    def cancels_a_task(self) -> None:
        number = self.rng.choice(self.model.live())
        control.cancel_task(self.ids[number])
        self.remember(number)
        self.model.end(number, "cancelled")

    @precondition(lambda self: self.model.run == "running" and self.rng.random() < 0.5)
    @rule()
    def pauses(self) -> None:
        control.pause_run(self.run_id)
        self.model.run = "paused"

    @precondition(lambda self: self.model.run == "paused")
    @rule()
    def resumes(self) -> None:
        self.model.run = "running"
        self.model.release()
        try:
            control.resume_run(self.run_id)
        except ConflictError:
            assert self.model.run in RUN.terminal, "what runs may end a paused run"
        gossip.make_good()

    @precondition(lambda self: self.model.run in ("running", "paused") and self.rng.random() < 0.15)
    @rule()
    def cancels_the_run(self) -> None:
        if Run.objects.get(id=self.run_id).status in RUN.terminal:
            return  # a paused run has ended with what ran; `resumes` compares it
        control.cancel_run(self.run_id)
        for number in self.model.cancel():
            self.remember(number)

    def remember(self, number: int) -> None:
        """Keep a report that is too late from now on."""
        if number in self.fences:
            task_id, fence = self.ids[number], self.fences[number]
            self.old_reports.append(lambda: complete(task_id, fence, "late"))

    @invariant()
    def rows_say_what_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        if gossip.lost:
            gossip.make_good()
        rows = dict(Task.objects.filter(run=self.run_id).values_list("number", "status"))
        run = Run.objects.get(id=self.run_id)
        assert (run.completed_at is not None) == (run.status in RUN.terminal)
        if self.model.run == "paused":
            self.compare_paused(rows)
            return
        assert rows == self.model.tasks
        assert run.status == self.model.run
        if run.status in ("running", "cancelling"):
            assert run.open_sinks == self.model.open_sinks()

    def compare_paused(self, rows: dict[int, str]) -> None:
        """What a pending task becomes may be decided now or when the pause ends."""
        for number, status in self.model.tasks.items():
            may_be = {status, "queued", "skipped"} if status == "pending" else {status}
            assert rows[number] in may_be


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.django_db(transaction=True)
def test_constructs_do_what_the_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.aftermath._follow", gossip)
    run_state_machine_as_test(
        Engine,
        settings=settings(
            max_examples=30,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )
