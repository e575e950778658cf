"""The engine against a model of twenty lines: Hypothesis drives both and compares every row."""

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
from tasks import reconcile
from tasks.claims import claim
from tasks.control import cancel_run, cancel_task
from tasks.graph import Graph, Node
from tasks.models import Run, Task
from tasks.reports import complete, fail
from tasks.retries import RetryPolicy
from tasks.states import RUN, TASK
from tasks.submission import start_run

LIVE = {"pending", "queued", "running", "retrying"}


class Model:
    """What the engine promises, written down as plainly as possible."""

    def __init__(self, graph: Graph) -> None:
        self.needs = {vertex.number: vertex.needs for vertex in graph.vertices}
        self.successors = {vertex.number: vertex.successors for vertex in graph.vertices}
        self.tasks = {n: "pending" if needs else "queued" for n, needs in self.needs.items()}
        self.run = "running"
        self.verdict = "completed"

    def release(self) -> None:
        for number, needs in sorted(self.needs.items()):
            ends = [self.tasks[need] for need in needs]
            if self.tasks[number] == "pending" and all(map(self.is_over, needs)):
                self.tasks[number] = "queued" if set(ends) <= {"completed"} else "skipped"
        if self.run == "running" and not LIVE & set(self.tasks.values()):
            self.run = self.verdict

    def is_over(self, number: int) -> bool:
        """A task that was cancelled early counts only when all that it waited for has ended."""
        return self.tasks[number] not in LIVE and all(map(self.is_over, self.needs[number]))

    def end(self, number: int, status: str) -> None:
        self.tasks[number] = status
        if status in {"failed", "cancelled"} and self.verdict == "completed":
            self.verdict = status
        self.release()


def random_nodes(rng: Random) -> Graph:
    size = rng.randint(1, 8)
    return Graph.of(
        [
            Node(
                key=f"t{n}",
                capability="work",
                needs=tuple(f"t{m}" for m in range(n) if rng.random() < 0.35),
                retry=RetryPolicy(limit=rng.choice((0, 1)), initial_s=1e6),
            )
            for n in range(size)
        ]
    )


class Engine(RuleBasedStateMachine):
    """The real verbs on the real database."""

    @initialize(seed=st.integers(0, 10_000))
    def start(self, seed: int) -> None:
        self.rng = Random(seed)
        project = Project.objects.get_or_create(slug="default")[0]
        agent = registry.register(project, name="model", kind="remote", capabilities=["work"])[0]
        self.agent = agent
        self.session = sessions.start(agent).id
        graph = random_nodes(self.rng)
        self.model = Model(graph)
        self.run_id = start_run(project, graph, inputs={}).id
        self.ids = dict(Task.objects.filter(run=self.run_id).values_list("number", "id"))
        self.fences: dict[int, int] = {}
        self.old_reports: list[Callable[[], Any]] = []

    def pick(self, status: str) -> int:
        return self.rng.choice(self.in_status(status))

    def in_status(self, status: str) -> list[int]:
        return sorted(n for n, now in self.model.tasks.items() if now == status)

    @precondition(lambda self: self.in_status("queued"))
    @rule()
    def claims(self) -> None:
        number = self.pick("queued")
        task = Task.objects.get(id=self.ids[number])
        held = claim(task.id, task.attempt, self.session)
        assert held is not None
        assert claim(task.id, task.attempt, self.session) is None, "a doubled hint claims nothing"
        self.fences[number] = held.fence
        self.model.tasks[number] = "running"

    @precondition(lambda self: self.in_status("running"))
    @rule()
    def completes(self) -> None:
        number = self.pick("running")
        complete(self.ids[number], self.fences[number], {"n": number})
        self.remember(number)
        self.model.end(number, "completed")

    @precondition(lambda self: self.in_status("running"))
    @rule(retryable=st.booleans())
    def fails(self, retryable: bool) -> None:
        number = self.pick("running")
        error = {"type": "x", "message": "y", "retryable": retryable}
        if fail(self.ids[number], self.fences[number], error):
            assert retryable
            self.model.tasks[number] = "retrying"
        else:
            self.model.end(number, "failed")
        self.remember(number)

    @precondition(lambda self: self.in_status("retrying"))
    @rule()
    def wakes(self) -> None:
        number = self.pick("retrying")
        past = timezone.now() - timedelta(seconds=1)
        Task.objects.filter(id=self.ids[number]).update(wake_at=past)
        reconcile.reconcile()
        self.model.tasks[number] = "queued"

    @rule()
    def loses_the_agent(self) -> None:
        for number in self.in_status("running"):
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

    @precondition(lambda self: bool(LIVE & set(self.model.tasks.values())))
    @rule()
    def cancels_a_task(self) -> None:
        live = sorted(n for n, status in self.model.tasks.items() if status in LIVE)
        number = self.rng.choice(live)
        cancel_task(self.ids[number])
        self.remember(number)
        self.model.end(number, "cancelled")

    @precondition(lambda self: self.model.run == "running" and self.rng.random() < 0.1)
    @rule()
    def cancels_the_run(self) -> None:
        cancel_run(self.run_id)
        for number, status in self.model.tasks.items():
            if status in LIVE:
                self.remember(number)
                self.model.tasks[number] = "cancelled"
        self.model.run = "cancelled"

    def remember(self, number: int) -> None:
        """Keep a report that is too late from now on."""
        if number in self.fences:
            task_id, fence = self.ids[number], self.fences[number]
            self.old_reports.append(lambda: complete(task_id, fence, "late"))

    @invariant()
    def rows_say_what_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        rows = dict(Task.objects.filter(run=self.run_id).values_list("number", "status"))
        assert rows == self.model.tasks
        run = Run.objects.get(id=self.run_id)
        assert run.status == self.model.run
        assert (run.completed_at is not None) == (run.status != "running")
        ends = [n for n in rows if not self.model.successors[n] and not self.model.is_over(n)]
        if run.status == "running":
            assert run.open_sinks == len(ends)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.django_db(transaction=True)
def test_engine_does_what_the_model_says() -> None:
    run_state_machine_as_test(
        Engine,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )


@pytest.mark.parametrize("machine", [TASK, RUN])
def test_terminal_states_never_change(machine: Any) -> None:
    assert machine.terminal >= {"completed", "failed", "cancelled"}
    for name in machine.statuses:
        assert machine.arrows[name] <= set(machine.statuses)
        assert name not in machine.arrows[name]


def test_sources_are_the_other_side_of_the_arrows() -> None:
    assert set(TASK.sources("running")) == {"queued"}
    assert set(TASK.sources("cancelled")) == {"pending", "queued", "running", "waiting", "retrying"}
