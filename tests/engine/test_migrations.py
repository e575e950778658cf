"""Migrations back and forth under live runs: none is lost, and all of them finish."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.migration import Migration
from pytest_django.plugin import DjangoDbBlocker

from agents import registry, runtime, sessions
from opscore.models import Project
from tasks import control, reports, reruns
from tasks.models import Run, Task
from tasks.results import outputs_of
from tests.engine.live_runs import (
    PLAIN,
    RICH,
    SIMPLE,
    Live,
    moody,
    waiting_for_approval,
)
from workflows import schedules
from workflows.models import Schedule
from workflows.testing import Rehearsal

APPS = ("opscore", "tasks", "webhooks", "workflows", "agents")
#: Without the default project, which all else stands on, there is nothing to go back to.
GROUND = ("opscore", "0001_initial")
LOADER = MigrationLoader(None)
NAMES = {
    app: sorted(name for own, name in LOADER.graph.nodes if own == app and (app, name) != GROUND)
    for app in APPS
}
NEWEST = [(app, NAMES[app][-1]) for app in APPS]
OLDEST = [(app, NAMES[app][0]) for app in APPS]
#: The one step that does not keep everything; it says so instead.
NARROW = ("tasks", "0001_initial", "0002_constructs")
#: As far back as everything is kept, and what is undone on that way.
WIDE = [NARROW[::2] if app == NARROW[0] else (app, name) for app, name in OLDEST]
WIDER = [(app, name) for app, kept in WIDE for name in NAMES[app] if name > kept]


def migrate(targets: Sequence[tuple[str, str]], progress: Callable[..., None] | None = None) -> Any:
    """Bring apps to these migrations, back or forth; return the models as they are then."""
    executor = MigrationExecutor(connection, progress)
    return executor.migrate(list(targets)).apps


@contextmanager
def database(name: str) -> Iterator[None]:
    """Have Django use another database for a while."""
    shared = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = name
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["NAME"] = shared


@contextmanager
def made(name: str, template: str = "template1") -> Iterator[None]:
    """Make a database, and drop it whatever happens; one of a test cut short may be in the way."""
    drop = f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"
    with connection.cursor() as cursor:
        cursor.execute(drop)
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(drop)


@pytest.fixture(scope="module")
def template(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """The name of an empty database with the newest schema, which nobody is connected to."""
    name = f"migrated_{os.getpid()}"
    with django_db_blocker.unblock(), made(name):
        with database(name):
            migrate(NEWEST)
        yield name


@pytest.fixture
def own_database(template: str, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """A database in the place of the one that all other tests share."""
    with django_db_blocker.unblock():
        own = f"own_{template}"
        with made(own, template), database(own):
            yield


@contextmanager
def rehearsed() -> Iterator[Rehearsal]:
    """Migrate to the newest schema, and execute on it what is there."""
    migrate(NEWEST)
    project = Project.objects.get(slug="default")
    agent = registry.register(project, name="stage", kind="remote", capabilities=["work"])[0]
    stage = Rehearsal(project, sessions.start(agent))
    runtime.begin(runtime.Life(stage.session.id, "stage", stage.handlers))
    stage.does("work", lambda task: {"n": task.inputs["n"]})
    stage.does("moody", moody)
    try:
        yield stage
    finally:
        runtime.begin(None)


@pytest.fixture
def stage(own_database: None) -> Iterator[Rehearsal]:
    with rehearsed() as stage:
        yield stage


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
def test_live_runs_survive_every_step_back_and_finish(stage: Rehearsal) -> None:
    lives = [start(stage) for start in SIMPLE + RICH]
    before = rows()
    undone: list[str] = []

    def compare(action: str, migration: Migration | None = None, *_: Any) -> None:
        if action in {"unapply_success", "apply_success"}:
            assert rows() == before, migration
            undone.append(str(migration))

    migrate(WIDE, compare)
    assert set(undone) >= {f"{app}.{name}" for app, name in WIDER}
    migrate(NEWEST, compare)
    finish(stage, lives)


def test_live_runs_survive_the_way_back_to_the_first_schema_and_finish(stage: Rehearsal) -> None:
    lives = [start(stage) for start in SIMPLE]
    before = rows()
    migrate(OLDEST)
    assert rows() == before
    migrate(NEWEST)
    finish(stage, lives)


def test_way_back_is_refused_while_a_run_would_be_lost_on_it(stage: Rehearsal) -> None:
    live = waiting_for_approval(stage)
    before = rows()
    with pytest.raises(IrreversibleError, match=f"Let them end or cancel them.*{live.run.pk}"):
        migrate([NARROW[:2]])
    migrate(NEWEST)
    assert rows() == before
    finish(stage, [live])
    migrate([NARROW[:2]])


def test_everything_that_the_first_schema_cannot_hold_is_refused(stage: Rehearsal) -> None:
    refuse = import_module("tasks.migrations.0002_constructs")._refuse_to_lose_runs
    for start in RICH:
        live = start(stage)
        with pytest.raises(IrreversibleError, match=str(live.run.pk)):
            refuse(None, SimpleNamespace(connection=connection))
        finish(stage, [live])
        refuse(None, SimpleNamespace(connection=connection))


def test_first_schema_is_told_again_what_can_never_run(stage: Rehearsal) -> None:
    work = "{capability: work, with: {n: 1}}"
    run = stage.start(f"name: two\ntasks: {{a: {work}, x: {work}, y: {{needs: x, {work[1:]}}}")
    control.cancel_task(run.tasks.get(key="x").pk)
    migrate([NARROW[:2]])
    with connection.cursor() as cursor:
        cursor.execute("SELECT key, cut FROM tasks_task ORDER BY key")
        assert cursor.fetchall() == [("a", 0), ("x", 1), ("y", 0)]
    migrate(NEWEST)
    assert stage.finish(run).completed_at
    assert stage.tasks(run) == {"a": "completed", "x": "cancelled", "y": "skipped"}


def test_schedules_are_lost_on_the_way_back_but_no_run_that_they_started(
    stage: Rehearsal,
) -> None:
    stage.upload(PLAIN)
    schedules.create(stage.project, name="nightly", workflow="plain", cron="@daily")
    slot = schedules.trigger(stage.project, "nightly")
    assert slot.run_id is not None
    migrate([("workflows", "0001_initial")])
    migrate(NEWEST)
    assert not Schedule.objects.exists()
    finish(stage, [Live(Run.objects.get(pk=slot.run_id), {"n": 5})])


# ------------------------------------------------------------ runs of the first schema
class FirstSchema:
    """Writes runs as the first schema has them, with the models of that time."""

    def __init__(self) -> None:
        self._models = migrate(OLDEST)
        self._project = self._models.get_model("opscore", "Project").objects.get(slug="default")

    def diamond(self, first: dict[str, Any], **run: Any) -> UUID:
        """Write a -> (b, c) -> d, of which only `a` has begun."""
        middle = {"pending": 1, "in_degree": 1, "successors": [3], "reads": [0]}
        return self.run(
            {"key": "a", "inputs": {"n": 1}, "successors": [1, 2], **first},
            {"key": "b", "inputs": {"n": "${{ tasks.a.result.n + 1 }}"}, **middle},
            {"key": "c", "inputs": {"n": "${{ tasks.a.result.n + 2 }}"}, **middle},
            {
                "key": "d",
                "inputs": {"n": "${{ tasks.b.result.n + tasks.c.result.n }}"},
                "pending": 2,
                "in_degree": 2,
                "reads": [1, 2],
            },
            open_sinks=1,
            **run,
        )

    def run(self, *tasks: dict[str, Any], **fields: Any) -> UUID:
        owner = {"project": self._project}
        run = self._add("tasks", "Run", task_count=len(tasks), **owner, **fields)
        for number, task in enumerate(tasks):
            place = {"run": run, "number": number, "capability": "work", "queue": "default.work"}
            self._add("tasks", "Task", **owner, **place, **task)
        return UUID(str(run.pk))

    def session(self) -> UUID:
        owner = {"project": self._project}
        agent = self._add("agents", "Agent", name="old", kind="remote", **owner)
        return UUID(str(self._add("agents", "AgentSession", agent=agent, **owner).pk))

    def _add(self, app: str, model: str, **fields: Any) -> Any:
        return self._models.get_model(app, model).objects.create(**fields)


def test_live_runs_of_the_first_schema_finish_on_the_newest(own_database: None) -> None:
    first = FirstSchema()
    held = {"status": "running", "fence": 1, "session_id": first.session()}
    runs = {
        "queued": first.diamond({"status": "queued", "ready_at": now()}),
        "running": first.diamond({**held, "started_at": now()}),
        "retrying": first.diamond({"status": "retrying", "attempt": 2, "wake_at": now()}),
        "paused": first.diamond({"status": "queued", "ready_at": now()}, status="paused"),
    }
    with rehearsed() as stage:
        control.resume_run(runs["paused"])
        reports.complete(Task.objects.get(run=runs["running"], key="a").pk, 1, {"n": 11})
        stage.work()
        ended = Run.objects.values_list("status", flat=True)
        assert list(ended) == ["completed"] * 4
        for state, run in runs.items():
            n = 25 if state == "running" else 5
            assert Task.objects.get(run=run, key="d").result == {"n": n}, state


def test_run_of_the_first_schema_ends_with_its_last_task_although_the_join_is_given_up(
    own_database: None,
) -> None:
    one, ended = {"inputs": {"n": 1}}, {"completed_at": now()}
    run = FirstSchema().run(
        {"key": "a", "status": "failed", "successors": [2], "cut": 1, **one, **ended},
        {"key": "b", "status": "queued", "successors": [2], "cut": 1, **one},
        {"key": "c", "status": "skipped", "pending": 2, "in_degree": 2, **one, **ended},
        open_sinks=1,
        error={"type": "unlucky", "message": "no"},
    )
    with rehearsed() as stage:
        stage.work()
        assert Task.objects.get(run=run, key="b").status == "completed"
        assert Run.objects.get(pk=run).status == "failed", "nothing else is left of it"
        again = reruns.rerun(run)
        assert stage.finish(again).status == "completed"


def now() -> datetime:
    return datetime.now(UTC)
