"""What a handler meets: errors, transactions, cancels, its log."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError

from agents.handlers import Context, HandlerError, Registered
from opscore.config import load_config
from opscore.database import query_apart
from opscore.models import Project
from tasks import tasklogs
from tasks.control import cancel_run, cancel_task
from tasks.execution import Outcome
from tasks.graph import Node
from tasks.models import Task, TaskLog
from tasks.submission import submit_task
from tests.engine import flows
from tests.engine.conftest import Bench, error_of, status_of, transaction_number
from tests.engine.test_races import in_thread

pytestmark = pytest.mark.django_db(transaction=True)


def node(**fields: Any) -> Node:
    return Node(**{"key": "job", "capability": "work", **fields})


def test_capability_without_a_handler_fails_with_that_reason(bench: Bench) -> None:
    task = submit_task(bench.project, node(capability="nobody"))
    bench.step(task)
    task.refresh_from_db()
    assert error_of(task)["type"] == "no_handler"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a NUL \0 inside"),
        FileNotFoundError(2, "gone", "name-\udcff"),
        HandlerError("odd", type={"a": object()}),  # type: ignore[arg-type]
        SystemExit(3),
        KeyboardInterrupt(),
    ],
)
def test_whatever_a_handler_raises_fails_its_attempt(bench: Bench, error: BaseException) -> None:
    def work(task: Context) -> None:
        raise error

    bench.does("work", work)
    task = submit_task(bench.project, node())
    assert bench.step(task) is Outcome.FAILED
    task.refresh_from_db()
    assert task.status == "failed"
    assert isinstance(error_of(task)["type"], str)


def test_handler_learns_that_it_was_cancelled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.execution._ASK_EVERY_S", 0.0)

    def work(task: Context) -> bool:
        before = task.cancelled()
        cancel_task(task.task_id)
        seen.append((before, task.cancelled(), task.cancelled()))
        return True

    seen: list[tuple[bool, bool, bool]] = []
    bench.does("work", work)
    assert bench.step(submit_task(bench.project, node())) is Outcome.STALE
    assert seen == [(False, True, True)]


def test_transactional_handler_writes_its_rows_with_the_result(bench: Bench) -> None:
    def work(task: Context) -> str:
        Project.objects.create(slug=f"made-{task.attempt}")
        return "done"

    bench.does("work", Registered("work", work, transactional=True))
    assert bench.step(submit_task(bench.project, node())) is Outcome.COMPLETED
    assert Project.objects.filter(slug="made-1").count() == 1


def test_rows_of_a_transactional_handler_vanish_when_its_report_is_refused(bench: Bench) -> None:
    def work(task: Context) -> str:
        Project.objects.create(slug="ghost")
        # The task is lost in the middle; in the same connection, as a thread of its own would.
        Task.objects.filter(id=task.task_id).update(fence=99)
        return "too late"

    bench.does("work", Registered("work", work, transactional=True))
    assert bench.step(submit_task(bench.project, node())) is Outcome.STALE
    assert not Project.objects.filter(slug="ghost").exists()


def test_rows_of_a_transactional_handler_vanish_when_its_result_cannot_be_kept(
    bench: Bench,
) -> None:
    def work(task: Context) -> object:
        Project.objects.create(slug="ghost")
        return object()

    bench.does("work", Registered("work", work, transactional=True))
    task = submit_task(bench.project, node())
    assert bench.step(task) is Outcome.FAILED
    assert status_of(task.id) == "failed"
    assert not Project.objects.filter(slug="ghost").exists()


def test_transactional_handler_is_run_again_when_the_database_broke_it(bench: Bench) -> None:
    tries: list[int] = []

    def work(task: Context) -> int:
        tries.append(1)
        Project.objects.create(slug=f"try-{len(tries)}")
        if len(tries) < 3:
            raise OperationalError("deadlock detected")
        return len(tries)

    bench.does("work", Registered("work", work, transactional=True))
    assert bench.step(submit_task(bench.project, node())) is Outcome.COMPLETED
    assert list(Project.objects.filter(slug__startswith="try").values_list("slug", flat=True)) == [
        "try-3"
    ]


def test_log_of_an_attempt_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_config(), "max_log_lines", 3)
    task = submit_task(bench.project, node())
    assert tasklogs.append(task.project_id, task.id, 1, [("log", "one\ntwo\0")]) is True
    assert tasklogs.append(task.project_id, task.id, 1, [("stderr", "three\nfour\n")]) is False
    assert tasklogs.append(task.project_id, task.id, 1, [("stderr", "five")]) is False
    kept = [("log", "one"), ("log", "two\N{SYMBOL FOR NULL}"), ("platform", tasklogs.FULL)]
    assert list(TaskLog.objects.order_by("id").values_list("stream", "text")) == kept
    tasklogs.append(task.project_id, task.id, 2, [("log", "y" * 9000)])
    assert len(TaskLog.objects.get(attempt=2).text) == tasklogs.MAX_LINE


def flood(context: Context) -> None:
    for number in range(1000):
        context.log(f"line {number}")


def test_flood_of_log_lines_stops_asking_the_database(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_config(), "max_log_lines", 2)
    bench.does("work", flood)
    task = submit_task(bench.project, node())
    before = transaction_number()
    assert bench.step(task) is Outcome.COMPLETED
    assert transaction_number() - before < 20
    assert TaskLog.objects.filter(task=task).count() == 2


def test_handlers_log_lines_are_kept(bench: Bench) -> None:
    bench.does("work", lambda context: context.log("hello"))
    task = submit_task(bench.project, node())
    bench.step(task)
    assert TaskLog.objects.get(task=task).text == "hello"


def test_transactional_handler_that_asks_locks_nothing_and_gives_a_sign_of_life(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.execution._ASK_EVERY_S", 0.0)
    seen: list[Any] = []

    def work(task: Context) -> None:
        seen.append(query_apart(_LEASE, {"id": task.task_id})[0]["lease"])
        assert not task.cancelled()
        seen.append(query_apart(_LEASE, {"id": task.task_id})[0]["lease"])
        thread = in_thread(lambda: cancel_run(task.run_id))
        thread.join(20)
        seen.append(thread.is_alive())
        seen.append(task.cancelled())

    bench.handlers["work"] = Registered("work", work, transactional=True)
    task = flows.task_of(flows.begin(bench, flows.node("a", heartbeat_s=60.0)), "a")
    assert bench.step(task) is Outcome.STALE
    before, after, *rest = seen
    assert before < after
    assert rest == [False, True]


_LEASE = "SELECT lease_until AS lease FROM tasks_task WHERE id = %(id)s"
