"""Migrations back and forth under live runs: none is lost, and all of them finish."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from pytest_django.plugin import DjangoDbBlocker

from agents import registry, runtime, sessions
from agents.handlers import Context, HandlerError
from opscore.models import Project
from tasks import claims, control, inbox, reports
from tasks.models import Run
from tasks.results import outputs_of
from workflows.testing import Rehearsal

APPS = ("tasks", "workflows", "agents")
LOADER = MigrationLoader(None)
NAMES = {app: sorted(name for own, name in LOADER.graph.nodes if own == app) for app in APPS}
#: One step back from each migration that has one before it.
STEPS = [(app, earlier, later) for app in APPS for earlier, later in pairwise(NAMES[app])]
OLDEST = [(app, NAMES[app][0]) for app in APPS]
#: The one step that does not keep everything; it says so instead.
NARROW = ("tasks", "0001_initial", "0002_constructs")

PLAIN = """
name: plain
tasks:
  a: {capability: work, with: {n: 1}}
  b: {needs: a, capability: work, with: {n: "${{ tasks.a.result.n + 1 }}"}}
  c: {needs: a, capability: work, with: {n: "${{ tasks.a.result.n + 2 }}"}}
  d: {needs: [b, c], capability: work, with: {n: "${{ tasks.b.result.n + tasks.c.result.n }}"}}
outputs: {n: "${{ tasks.d.result.n }}"}
"""
MOODY = """
name: moody
tasks:
  a: {capability: moody, retry: {limit: 1, backoff: {initial: 1h, jitter: none}}}
  b: {needs: a, capability: work, with: {n: 5}}
outputs: {n: "${{ tasks.b.result.n }}"}
"""


def step_name(step: tuple[str, str, str]) -> str:
    return f"{step[0]}.{step[2]}"


def migrate(targets: Sequence[tuple[str, str]]) -> Any:
    """Bring apps to these migrations, back or forth; return the models as they are then."""
    executor = MigrationExecutor(connection)
    return executor.migrate(list(targets)).apps


def newest() -> list[tuple[str, str]]:
    return [(app, NAMES[app][-1]) for app in APPS]


@pytest.fixture
def own_database(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """An empty database in the place of the one that all other tests share."""
    shared, own = connection.settings_dict["NAME"], f"migrations_{os.getpid()}"
    with django_db_blocker.unblock():
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {own}")
        connection.close()
        connection.settings_dict["NAME"] = own
        try:
            yield
        finally:
            connection.close()
            connection.settings_dict["NAME"] = shared
            with connection.cursor() as cursor:
                cursor.execute(f"DROP DATABASE {own} WITH (FORCE)")


@pytest.fixture
def stage(own_database: None) -> Iterator[Rehearsal]:
    """A rehearsal on the newest schema, in the test's own database."""
    migrate(newest())
    project = Project.objects.get(slug="default")
    agent = registry.register(project, name="stage", kind="remote", capabilities=["work"])[0]
    stage = Rehearsal(project, sessions.start(agent))
    runtime.begin(runtime.Life(stage.session.id, "stage", stage.handlers))
    stage.does("work", lambda task: {"n": task.inputs["n"]})
    stage.does("moody", moody)
    yield stage
    runtime.begin(None)


def moody(task: Context) -> None:
    if task.attempt == 1:
        raise HandlerError("not today")


# ------------------------------------------------------------ runs that live
@dataclass
class Live:
    """A run in the middle, what it must give in the end, and what somebody has yet to do."""

    run: Run
    outputs: Any
    go_on: Callable[[], object] = lambda: None


def queued(stage: Rehearsal) -> Live:
    return Live(stage.start(PLAIN), {"n": 5})


def half_done(stage: Rehearsal) -> Live:
    run = stage.start(PLAIN)
    for key in "ab":
        stage.step(run.tasks.get(key=key))
    assert stage.tasks(run) == {
        "a": "completed",
        "b": "completed",
        "c": "queued",
        "d": "pending",
        "end": "pending",
    }
    return Live(run, {"n": 5})


def running(stage: Rehearsal) -> Live:
    run = stage.start(PLAIN)
    task = run.tasks.get(key="a")
    held = claims.claim(task.id, task.attempt, stage.session.id)
    assert held
    # Its agent worked on, and reports to the newest code.
    return Live(run, {"n": 25}, lambda: reports.complete(task.id, held.fence, {"n": 11}))


def retrying(stage: Rehearsal) -> Live:
    run = stage.start(MOODY)
    stage.step(run.tasks.get(key="a"))
    assert run.tasks.get(key="a").status == "retrying"
    return Live(run, {"n": 5})


def paused(stage: Rehearsal) -> Live:
    run = stage.start(PLAIN)
    control.pause_run(run.pk)
    return Live(run, {"n": 5}, lambda: control.resume_run(run.pk))


def waiting_for_time(stage: Rehearsal) -> Live:
    return Live(stage.start(flow("{uses: wait, with: {duration: 1h}}")), {"a": None})


def waiting_for_approval(stage: Rehearsal) -> Live:
    live = Live(stage.start(flow("{uses: approval}")), ANSWERED)
    task = live.run.tasks.get(key="a")
    live.go_on = lambda: inbox.decide(task.id, "approve", by="me")
    return live


def waiting_for_a_signal(stage: Rehearsal) -> Live:
    run = stage.start(flow("{uses: signal, with: {name: go}}"))
    return Live(run, {"a": 7}, lambda: inbox.send(run.pk, "go", 7))


def waiting_for_items(stage: Rehearsal) -> Live:
    task = "{for_each: [1, 2, 3], max_parallel: 1, capability: work, with: {n: '${{ item }}'}}"
    run = stage.start(flow(task))
    stage.step(run.tasks.get(key="a[0]"))
    return Live(run, {"a": [{"n": 1}, {"n": 2}, {"n": 3}]})


def waiting_for_a_run_inside(stage: Rehearsal) -> Live:
    inside = "{b: {capability: work, with: {n: 3}}}"
    run = stage.start(flow(f"{{tasks: {inside}, outputs: {{n: '${{{{ tasks.b.result.n }}}}'}}}}"))
    return Live(run, {"a": {"n": 3}})


def created(stage: Rehearsal) -> Live:
    text = f"{flow('{capability: work, with: {n: 1}}')}concurrency: 1\n"
    stage.start(text)
    run = stage.start(text)
    run.refresh_from_db()
    assert run.status == "created"
    return Live(run, {"a": {"n": 1}})


def paused_with_its_workflow(stage: Rehearsal) -> Live:
    run = stage.start(PLAIN)
    control.pause(stage.project, "plain")
    return Live(run, {"n": 5}, lambda: control.resume(stage.project, "plain"))


def with_an_end_of_its_own(stage: Rehearsal) -> Live:
    text = flow("{capability: work, with: {n: 1}}")
    return Live(
        stage.start(f"{text}finally: {{z: {{capability: work, with: {{n: 2}}}}}}"), {"a": {"n": 1}}
    )


def behind_a_condition(stage: Rehearsal) -> Live:
    run = stage.start(flow("{if: 'run.id == \"\"', capability: work, with: {n: 1}}"))
    return Live(run, {"a": None})


def flow(task: str) -> str:
    return f'name: flow\ntasks:\n  a: {task}\noutputs: {{a: "${{{{ tasks.a.result }}}}"}}\n'


ANSWERED = {"a": {"approved": True, "by": "me", "comment": ""}}
#: What the first schema can hold: agents' tasks in a graph, and retries.
SIMPLE = [queued, half_done, running, retrying, paused]
#: What it cannot.
RICH = [
    waiting_for_time,
    waiting_for_approval,
    waiting_for_a_signal,
    waiting_for_items,
    waiting_for_a_run_inside,
    created,
    paused_with_its_workflow,
    with_an_end_of_its_own,
]


def rows() -> dict[str, list[Any]]:
    """Return what a loss would be seen in, as every schema has it."""
    found = {}
    for table, columns in (
        ("run", "status, inputs, error, completed_at, open_sinks"),
        ("task", "status, attempt, fence, pending, successors, result, wake_at, session_id"),
        ("attempt", "outcome, error"),
    ):
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT id, {columns} FROM tasks_{table} ORDER BY id")
            found[table] = cursor.fetchall()
    return found


def finish(stage: Rehearsal, lives: Sequence[Live]) -> None:
    for live in lives:
        live.go_on()
    for live in lives:
        ended = stage.finish(live.run)
        assert (ended.status, outputs_of(ended)) == ("completed", live.outputs)
    assert not Run.objects.exclude(status="completed").exists()


# ------------------------------------------------------------ back and forth
@pytest.mark.parametrize("step", STEPS, ids=step_name)
def test_live_runs_survive_a_step_back_and_finish(
    stage: Rehearsal, step: tuple[str, str, str]
) -> None:
    app, earlier, _ = step
    states = SIMPLE if step == NARROW else SIMPLE + RICH
    lives = [start(stage) for start in states]
    before = rows()
    migrate([(app, earlier)])
    assert rows() == before
    migrate(newest())
    assert rows() == before
    finish(stage, lives)


def test_live_runs_survive_the_way_back_to_the_first_schema_and_finish(stage: Rehearsal) -> None:
    lives = [start(stage) for start in SIMPLE]
    before = rows()
    migrate(OLDEST)
    assert rows() == before
    migrate(newest())
    finish(stage, lives)


@pytest.mark.parametrize("start", RICH)
def test_way_back_is_refused_while_a_run_would_be_lost_on_it(
    stage: Rehearsal, start: Callable[[Rehearsal], Live]
) -> None:
    live = start(stage)
    before = rows()
    with pytest.raises(IrreversibleError, match="Let them end or cancel them"):
        migrate([NARROW[:2]])
    migrate(newest())
    assert rows() == before
    finish(stage, [live])
    migrate([NARROW[:2]])
