"""Concurrency keys, rate limits, time-outs, pause and forced cancel."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from agents.handlers import Context
from agents.models import Agent
from opscore.errors import ConflictError, InvalidError
from tasks import control, housekeeping, reconcile
from tasks.flow import Catch, Concurrency, RateLimit
from tasks.models import RateWindow, Run, Task
from tasks.retries import RetryPolicy
from tests.engine.conftest import Bench, error_of
from tests.engine.flows import begin, node, pass_time, refuse, statuses, task_of

pytestmark = pytest.mark.django_db(transaction=True)


# ------------------------------------------------------------ limits
def test_concurrency_key_bounds_what_is_live(bench: Bench) -> None:
    limit = Concurrency(key="${{ inputs.who }}", limit=2)
    nodes = [node(f"t{n}", concurrency=limit) for n in range(5)]
    run = begin(bench, *nodes, inputs={"who": "acme"})
    other = begin(bench, node("x", concurrency=limit), inputs={"who": "other"})
    assert statuses(other) == {"x": "queued"}
    for _ in range(5):
        assert run.tasks.filter(status__in=["queued", "running"]).count() <= 2
        bench.step(run.tasks.filter(status="queued").order_by("number")[0])
    assert bench.finish(run).status == "completed"


def test_slot_is_freed_by_failure_retry_and_cancel(bench: Bench) -> None:
    bench.does("other", refuse)
    limit = Concurrency(key="one")
    run = begin(
        bench,
        node("a", capability="other", concurrency=limit, priority=9),
        node("b", capability="other", concurrency=limit, retry=RetryPolicy(limit=1, initial_s=1e6)),
        node("c", concurrency=limit),
        node("d", concurrency=limit, priority=0),
    )
    seen = []
    for _ in range(2):
        task = run.tasks.get(status="queued")
        seen.append(task.key)
        bench.step(task)
    last = run.tasks.get(status="queued")
    control.cancel_task(last.id)
    assert run.tasks.get(status="queued").key == "d"
    assert {*seen, last.key} == {"a", "b", "c"}


def test_taken_key_rejects_or_cancels(bench: Bench) -> None:
    reject = Concurrency(key="k", on_conflict="reject")
    run = begin(bench, node("a", concurrency=reject), node("b", concurrency=reject))
    bench.finish(run)
    assert sorted(statuses(run).values()) == ["completed", "failed"]
    assert error_of(run)["type"] == "concurrency"
    newest = Concurrency(key="n", on_conflict="cancel_oldest")
    old = begin(bench, node("a", concurrency=newest))
    new = begin(bench, node("a", concurrency=newest))
    assert (statuses(old), statuses(new)) == ({"a": "cancelled"}, {"a": "queued"})


def test_runs_stand_in_line_for_a_key(bench: Bench) -> None:
    limit = Concurrency(key="${{ inputs.k }}")
    runs = [begin(bench, node("a"), inputs={"k": 1}, concurrency=limit) for _ in range(3)]
    assert [Run.objects.get(id=run.id).status for run in runs] == ["running", "created", "created"]
    for run in runs:
        assert bench.finish(run).status == "completed"


def test_run_is_refused_or_takes_the_oldest_ones_place(bench: Bench) -> None:
    reject = Concurrency(key="k", on_conflict="reject")
    begin(bench, node("a"), concurrency=reject)
    with pytest.raises(ConflictError, match="concurrency key"):
        begin(bench, node("a"), concurrency=reject)
    assert Run.objects.count() == 1
    newest = Concurrency(key="n", on_conflict="cancel_oldest")
    old = begin(bench, node("a"), concurrency=newest)
    new = begin(bench, node("a"), concurrency=newest)
    old.refresh_from_db()
    new.refresh_from_db()
    assert (old.status, new.status) == ("cancelled", "running")


def test_rate_limit_is_a_sliding_window(bench: Bench) -> None:
    rate = RateLimit(key="api", limit=2, per_s=60)
    run = begin(bench, *(node(f"t{n}", rate_limit=rate) for n in range(5)))
    assert run.tasks.filter(status="queued").count() == 2
    waiting = run.tasks.filter(status="waiting").order_by("wake_at")
    waits = [(task.wake_at - timezone.now()).total_seconds() for task in waiting if task.wake_at]
    assert [round(wait / 60) for wait in waits] == [1, 1, 2]
    pass_time(run)
    assert run.tasks.filter(status="queued").count() == 2, "late starts are reserved anew"


def test_starts_that_came_due_in_a_pause_do_not_burst(bench: Bench) -> None:
    rate = RateLimit(key="api", limit=1, per_s=60)
    run = begin(bench, *(node(f"t{n}", rate_limit=rate) for n in range(5)))
    bench.finish(run)
    control.pause_run(run.id)
    window = RateWindow.objects.get()
    window.starts = [start - timedelta(hours=1) for start in window.starts]
    window.save()
    pass_time(run)
    control.resume_run(run.id)
    reconcile.reconcile()
    assert run.tasks.filter(status="queued").count() == 1
    waiting = run.tasks.filter(status="waiting").order_by("wake_at")
    waits = [(task.wake_at - timezone.now()).total_seconds() for task in waiting if task.wake_at]
    assert [round(wait / 60) for wait in waits] == [1, 2, 3]


def test_rate_windows_that_have_passed_are_forgotten(bench: Bench) -> None:
    for who in "ab":
        rate = RateLimit(key=who, limit=1, per_s=60)
        bench.finish(begin(bench, node("a", rate_limit=rate)))
    RateWindow.objects.filter(key="a").update(starts=[timezone.now() - timedelta(hours=2)])
    housekeeping.clean_up()
    assert [window.key for window in RateWindow.objects.all()] == ["b"]


def test_paused_workflow_takes_no_slot(bench: Bench) -> None:
    slot = Concurrency("k")
    first = begin(bench, node("a", concurrency=slot), workflow="w0")
    stopped = begin(bench, node("b", concurrency=slot), workflow="w1")
    free = begin(bench, node("c", concurrency=slot), workflow="w2")
    control.pause(bench.project, "w1")
    bench.finish(first)
    assert (statuses(stopped), statuses(free)) == ({"b": "waiting"}, {"c": "queued"})


def test_empty_key_is_refused(bench: Bench) -> None:
    empty = Concurrency(key="${{ inputs.who }}")
    with pytest.raises(InvalidError) as refused:
        begin(bench, node("a"), concurrency=empty, inputs={"who": ""})
    assert refused.value.problems[0].path == "concurrency.key"
    run = begin(bench, node("a", concurrency=empty), inputs={"who": ""})
    assert "is empty" in error_of(task_of(run, "a"))["message"]


# ------------------------------------------------------------ time-outs and control
def test_queue_timeout(bench: Bench) -> None:
    run = begin(bench, node("a", queue_timeout_s=60))
    run.tasks.update(ready_at=timezone.now() - timedelta(minutes=2))
    reconcile.reconcile()
    assert error_of(task_of(run, "a"))["type"] == "queue_timeout"


def test_heartbeat_timeout_and_the_sign_of_life(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.execution._ASK_EVERY_S", 0.0)
    leases: list[Any] = []

    def work(context: Context) -> None:
        task = Task.objects.get(id=context.task_id)
        leases.append(task.lease_until)
        assert not context.cancelled()
        task.refresh_from_db()
        leases.append(task.lease_until)
        Task.objects.filter(id=task.id).update(lease_until=timezone.now())
        reconcile.reconcile()
        assert context.cancelled()

    bench.does("work", work)
    run = bench.finish(begin(bench, node("a", heartbeat_s=60)))
    assert leases[1] > leases[0]
    assert error_of(run)["type"] == "heartbeat_timeout"


def test_paused_run_starts_nothing_and_goes_on(bench: Bench) -> None:
    run = begin(bench, node("a"), node("b", "a"), node("nap", uses="wait", inputs={"duration": 1}))
    control.pause_run(run.id, "me")
    bench.step(task_of(run, "a"))
    assert statuses(run)["a"] == "queued"
    pass_time(run)
    assert statuses(run)["nap"] == "waiting"
    control.resume_run(run.id)
    reconcile.reconcile()
    assert bench.finish(run).status == "completed"
    with pytest.raises(ConflictError, match="completed"):
        control.pause_run(run.id)


@pytest.mark.parametrize("workflow", ["", "report"])
def test_pause_of_a_workflow_or_everything(bench: Bench, workflow: str) -> None:
    control.pause(bench.project, workflow, actor="me")
    run = begin(bench, node("a"), workflow="report")
    free = begin(bench, node("a"), workflow="other")
    bench.step(task_of(run, "a"))
    bench.step(task_of(free, "a"))
    assert statuses(run) == {"a": "queued"}
    assert statuses(free) == {"a": "completed" if workflow else "queued"}
    control.resume(bench.project, workflow)
    bench.step(task_of(run, "a"))
    assert statuses(run) == {"a": "completed"}


def test_cancelled_task_that_is_not_let_go_costs_its_process(bench: Bench) -> None:
    stuck: list[UUID] = []

    def work(context: Context) -> None:
        control.cancel_run(context.run_id)
        stuck.append(context.task_id)
        Task.objects.filter(id=context.task_id).update(
            lease_until=timezone.now() - timedelta(seconds=1)
        )
        Agent.objects.filter(id=bench.session.agent_id).update(spec="bench")
        reconcile.reconcile()

    bench.does("work", work)
    run = bench.finish(begin(bench, node("a")))
    assert run.status == "cancelled"
    bench.session.refresh_from_db()
    assert "still at work" in bench.session.condemned
    assert Task.objects.get(id=stuck[0]).lease_until is None


def test_task_cancelled_early_ends_no_run_before_its_needs(bench: Bench) -> None:
    run = begin(bench, node("a"), node("b", "a"), node("c", "b"))
    control.cancel_task(task_of(run, "b").id)
    run.refresh_from_db()
    assert (run.status, statuses(run)["c"]) == ("running", "pending")
    bench.finish(run)
    assert statuses(run) == {"a": "completed", "b": "cancelled", "c": "skipped"}
    assert run.status == "cancelled"


def test_what_catches_a_failure_holds_no_slot(bench: Bench) -> None:
    bench.does("work", refuse)
    slot = Concurrency("k")
    catching = node("a", concurrency=slot, catch=Catch(capability="other"), priority=9)
    run = begin(bench, catching, node("b", concurrency=slot))
    bench.step(task_of(run, "a"))
    assert statuses(run) == {"a": "queued", "b": "queued"}
    assert task_of(run, "a").limit_key == ""
