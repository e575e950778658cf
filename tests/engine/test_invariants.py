"""The invariants of the chaos runs find what they are for, and nothing in a sound database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from opscore.database import query
from opscore.models import Project
from tasks.models import Run
from tasks.submission import start_run
from tests.chaos.invariants import FORGET, OBSERVE, recoveries, violations
from tests.engine.conftest import Bench
from tests.engine.dags import chain

pytestmark = pytest.mark.django_db(transaction=True)
CLEAN: dict[str, list[str]] = {"lost": [], "doubled": [], "out_of_order": [], "stuck": []}


@pytest.fixture
def observer(db: None) -> Iterator[None]:
    """The observer in the tests' database, for one test."""
    with connection.cursor() as cursor:
        cursor.execute(OBSERVE)
    yield
    with connection.cursor() as cursor:
        cursor.execute(FORGET)


@pytest.fixture
def finished(bench: Bench, observer: None) -> Run:
    """A run of three tasks that has completed under observation."""
    return bench.finish(start_run(bench.project, chain(3), inputs={"label": "one"}))


def found(answered: list[str] | None = None) -> dict[str, list[str]]:
    return violations(query, answered=answered)


def change(sql: str, **params: Any) -> None:
    query(sql, params)


def test_a_sound_run_violates_nothing(finished: Run) -> None:
    assert found(["one"]) == CLEAN


def test_a_run_that_did_not_end_is_lost(finished: Run, project: Project) -> None:
    other = start_run(project, chain(2), inputs={})
    assert found()["lost"] == [f"{other.id}: run not ended: running"]


def test_a_run_that_failed_is_lost_unless_that_is_expected(finished: Run) -> None:
    change("UPDATE tasks_run SET status = 'failed'")
    assert len(found()["lost"]) == 1
    assert violations(query, expected=("failed",)) == CLEAN


def test_a_submission_that_was_answered_and_is_gone_is_lost(finished: Run) -> None:
    assert [line.split(":")[0] for line in found(["one", "two"])["lost"]] == ["two"]


def test_a_second_result_is_doubled(finished: Run) -> None:
    change("UPDATE tasks_task SET completed_at = now() + interval '1 s' WHERE number = 1")
    assert len(found()["doubled"]) == 1


def test_a_result_that_is_taken_back_is_doubled(finished: Run) -> None:
    change("UPDATE tasks_task SET status = 'queued' WHERE number = 2")
    assert len(found()["doubled"]) == 1


@pytest.mark.parametrize(("exact", "doubled"), [(True, 1), (False, 0)])
def test_only_a_transactional_effect_must_not_be_repeated(
    finished: Run, exact: bool, doubled: int
) -> None:
    task = finished.tasks.first()
    assert task is not None
    for attempt in (1, 2):
        change(
            """INSERT INTO chaos_effect (run_id, key, task_id, attempt, exact)
               VALUES (%(run)s, 'x', %(task)s, %(attempt)s, %(exact)s)""",
            run=finished.id,
            task=task.id,
            attempt=attempt,
            exact=exact,
        )
    assert len(found()["doubled"]) == doubled


def test_one_submission_that_made_two_runs_is_doubled(finished: Run, bench: Bench) -> None:
    bench.finish(start_run(bench.project, chain(1), inputs={"label": "one"}))
    assert len(found()["doubled"]) == 1


def test_a_task_that_started_too_early_is_out_of_order(finished: Run) -> None:
    change(
        "UPDATE chaos_end SET at = at + interval '1 hour' WHERE ctid = (SELECT min(ctid) FROM chaos_end)"
    )
    assert len(found()["out_of_order"]) == 1


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE tasks_run SET completed_at = NULL",
        "UPDATE tasks_task SET status = 'running' WHERE number = 2",
        """UPDATE tasks_task SET status = 'queued', hinted_at = now() - interval '1 min'
            WHERE number = 2""",
    ],
)
def test_what_nobody_will_ever_move_is_stuck(finished: Run, harm: str) -> None:
    change(harm)
    change("UPDATE tasks_run SET status = 'running'")
    assert found()["stuck"]


@pytest.mark.usefixtures("observer")
def test_recovery_is_the_time_from_a_kill_to_the_next_start(bench: Bench) -> None:
    run = start_run(bench.project, chain(1), inputs={})

    def die(_: object) -> None:
        change("UPDATE agents_agentsession SET pid = 42 WHERE id = %(id)s", id=bench.session.id)
        bench.reborn()

    bench.does("work", die)
    bench.step(run.tasks.get())
    bench.does("work", lambda _: None)
    bench.finish(run)
    # Somewhere between the two starts of the task.
    first = query("SELECT min(at)::text AS at FROM chaos_start", {})[0]["at"]
    kill = f'[{{"pid": 42, "at": "{first}"}}]'
    [seconds] = recoveries(query, kill)
    assert 0 < seconds < 5
    assert recoveries(query, '[{"pid": 43, "at": "2020-01-01"}]') == []
