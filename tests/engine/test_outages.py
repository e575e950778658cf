"""The engine when its database connection breaks under it: repeated, put back, given up."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection

from agents.handlers import Context
from opscore.config import ROOT
from tasks import tasklogs
from tasks.execution import Outcome, execute
from tasks.models import Task, TaskLog
from tasks.patience import patiently
from tasks.submission import submit_task
from tests.engine.conftest import Bench, status_of
from tests.engine.test_verbs import node

pytestmark = pytest.mark.django_db(transaction=True)


def break_connection() -> None:
    """Have the server end this thread's connection, as a restart of PostgreSQL does."""
    connection.ensure_connection()
    victim = connection.connection.info.backend_pid
    settings = connection.settings_dict
    with psycopg.connect(
        host=settings["HOST"],
        port=settings["PORT"],
        user=settings["USER"],
        password=settings["PASSWORD"],
        dbname=settings["NAME"],
    ) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [victim])


def test_claim_is_repeated_on_a_new_connection(bench: Bench) -> None:
    task = submit_task(bench.project, node())
    break_connection()
    assert execute(task.id, 1, ()) is Outcome.COMPLETED


def test_claim_whose_answer_was_lost_is_put_back_and_taken_again(bench: Bench) -> None:
    task = submit_task(bench.project, node())
    # Committed, but this process never heard of it.
    Task.objects.filter(id=task.id).update(status="running", session_id=bench.session.id, fence=1)
    break_connection()
    assert execute(task.id, 1, ()) is Outcome.COMPLETED
    task.refresh_from_db()
    assert (task.fence, task.losses, task.attempt) == (3, 0, 1)


def test_result_is_recorded_although_the_connection_broke_meanwhile(bench: Bench) -> None:
    def work(task: Context) -> str:
        break_connection()
        task.log("nobody hears this")
        assert task.cancelled() is False
        return "done"

    bench.does("work", work)
    task = submit_task(bench.project, node())
    assert bench.step(task) is Outcome.COMPLETED
    task.refresh_from_db()
    assert task.result == "done"


def test_cancelled_is_false_while_nobody_can_know(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.execution._ASK_EVERY_S", 0.0)
    seen: list[bool] = []

    def work(task: Context) -> None:
        break_connection()
        seen.extend([task.cancelled(), task.cancelled()])

    bench.does("work", work)
    assert bench.step(submit_task(bench.project, node())) is Outcome.COMPLETED
    assert seen == [False, False]


def test_database_error_of_a_handler_fails_its_attempt(bench: Bench) -> None:
    def work(task: Context) -> None:
        raise OperationalError("the handler's own database is away")

    bench.does("work", work)
    task = submit_task(bench.project, node())
    assert bench.step(task) is Outcome.FAILED
    task.refresh_from_db()
    assert task.error is not None
    assert task.error["type"] == "OperationalError"
    assert "traceback" in task.error


def test_failure_that_comes_too_late_is_refused(bench: Bench) -> None:
    def work(task: Context) -> None:
        Task.objects.filter(id=task.task_id).update(fence=99)
        raise ValueError("too late")

    bench.does("work", work)
    assert bench.step(submit_task(bench.project, node())) is Outcome.STALE


def test_result_that_comes_too_late_is_refused(bench: Bench) -> None:
    def work(task: Context) -> None:
        Task.objects.filter(id=task.task_id).update(fence=99)

    bench.does("work", work)
    task = submit_task(bench.project, node())
    assert bench.step(task) is Outcome.STALE
    assert status_of(task.id) == "running"


GIVES_UP = """
import django
django.setup()
from django.db import OperationalError
from tasks.patience import patiently
def away():
    raise OperationalError("away")
patiently(away, patience_s=0.3)
print("not reached")
"""


def test_process_ends_itself_when_its_database_stays_away() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GIVES_UP],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "opscore.settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == os.EX_TEMPFAIL
    assert "database.away" in done.stderr
    assert "not reached" not in done.stdout


def test_patience_returns_what_the_action_returns() -> None:
    answers: list[Any] = [OperationalError("away"), 7]

    def action() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return int(answer)

    assert patiently(action) == 7
    assert answers == []


def test_log_line_is_not_worth_the_task(bench: Bench) -> None:
    def work(task: Context) -> None:
        task.log("one")
        break_connection()
        task.log("lost")
        task.log("three")

    bench.does("work", work)
    task = submit_task(bench.project, node())
    assert bench.step(task) is Outcome.COMPLETED
    assert list(TaskLog.objects.order_by("id").values_list("text", flat=True)) == ["one", "three"]
    assert tasklogs.append(task.project_id, task.id, 1, []) is True
