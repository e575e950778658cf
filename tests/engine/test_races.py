"""Two processes at once, and processes that die in between: what a review found, and holds now."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from agents.handlers import Context, HandlerError
from opscore.database import query
from opscore.errors import ConflictError
from tasks import control, dispatch, items, reconcile, reports, reruns
from tasks.claims import claim
from tasks.dispatch import READY_CHANNEL
from tasks.flow import Catch, Concurrency, Flow, Undo
from tasks.graph import Node
from tasks.models import Payload, Run, Task
from tasks.reports import complete
from tasks.retries import RetryPolicy
from tasks.submission import submit_task
from tasks.transitions import runs, turns
from tests.conftest import WaitUntil
from tests.engine.conftest import Bench, error_of
from tests.engine.flows import begin, node, pass_time, refuse, statuses, task_of
from workflows import registry
from workflows.definition import parse

pytestmark = pytest.mark.django_db(transaction=True)


def in_thread(action: Callable[[], Any]) -> threading.Thread:
    def act() -> None:
        try:
            action()
        finally:
            connection.close()

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def somebody_waits(wait_until: WaitUntil, count: int) -> None:
    def waiting() -> bool:
        rows = query("SELECT count(*) AS n FROM pg_locks WHERE NOT granted", {})
        return int(rows[0]["n"]) >= count

    wait_until(waiting)


def gather_twice_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil, count: int
) -> Run:
    """End two items together, so that two processes gather behind the same lock."""
    run = begin(bench, node("each", for_each=list(range(count)), max_parallel=2))
    each = task_of(run, "each").id
    gather = items.gather
    monkeypatch.setattr(items, "gather", lambda task_id: None)
    for item in run.tasks.filter(parent_id=each):
        bench.step(item)
    with transaction.atomic():
        query("SELECT id FROM tasks_task WHERE id = %(id)s FOR UPDATE", {"id": each})
        threads = [in_thread(lambda: gather(each)) for _ in range(2)]
        somebody_waits(wait_until, 2)
    for thread in threads:
        thread.join()
    return run


def test_list_does_not_end_before_its_last_items(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    run = gather_twice_at_once(bench, monkeypatch, wait_until, 4)
    assert statuses(run)["each"] == "waiting"


def test_max_parallel_holds_when_two_gather_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    run = gather_twice_at_once(bench, monkeypatch, wait_until, 10)
    assert run.tasks.filter(parent_id__isnull=False, status="queued").count() == 2


def test_cancel_meets_the_adding_of_items(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    run = begin(bench, node("each", for_each=list(range(10)), max_parallel=1))
    each = task_of(run, "each")
    monkeypatch.setattr(items, "gather", lambda task_id: None)
    bench.step(task_of(run, "each[0]"))
    with transaction.atomic():
        for row in query(runs.CONTAINER, {"id": each.id}):
            items._gather(row, Flow.from_dict(row["flow"]))
        thread = in_thread(lambda: control.cancel_run(run.id))
        somebody_waits(wait_until, 1)
    thread.join()
    assert run.tasks.count() == 3
    assert not run.tasks.filter(status="queued").exists()


def test_time_limit_of_a_list_is_that_of_its_items(bench: Bench) -> None:
    run = begin(bench, node("each", for_each=[1], timeout_s=60, retry=RetryPolicy(limit=1)))
    pass_time(run)
    assert statuses(run)["each"] == "waiting"
    assert task_of(run, "each[0]").timeout_s == 60


@pytest.mark.parametrize("how", ["cancel", "queue timeout"])
def test_task_that_ends_while_its_run_stands_in_line(bench: Bench, how: str) -> None:
    key = Concurrency("k")
    first = begin(bench, node("a"), concurrency=key)
    second = begin(bench, node("b", queue_timeout_s=5.0), concurrency=key)
    if how == "cancel":
        control.cancel_task(task_of(second, "b").id)
    bench.finish(first)
    if how == "queue timeout":
        second.tasks.update(ready_at=F("ready_at") - timedelta(minutes=1))
    reconcile.reconcile()
    bench.finish(second)
    assert second.status == ("cancelled" if how == "cancel" else "failed")


def test_time_in_line_and_in_a_pause_is_no_time_in_the_queue(bench: Bench) -> None:
    key = Concurrency("k")
    first = begin(bench, node("a"), concurrency=key)
    second = begin(bench, node("b", queue_timeout_s=5.0), concurrency=key)
    third = begin(bench, node("c", queue_timeout_s=5.0), workflow="nightly")
    control.pause_run(third.id)
    for run in (second, third):
        run.tasks.update(ready_at=F("ready_at") - timedelta(minutes=1))
    bench.finish(first)
    control.resume_run(third.id)
    control.pause(bench.project, "nightly")
    third.tasks.update(ready_at=F("ready_at") - timedelta(minutes=1))
    control.resume(bench.project, "nightly")
    reconcile.reconcile()
    assert (statuses(second), statuses(third)) == ({"b": "queued"}, {"c": "queued"})


def test_cancelled_run_is_not_revived_by_a_place_that_becomes_free(
    bench: Bench, wait_until: WaitUntil
) -> None:
    key = Concurrency("k")
    first, second, third = (begin(bench, node("a"), concurrency=key) for _ in range(3))
    with transaction.atomic():
        control.cancel_run(second.id)
        thread = in_thread(lambda: control.cancel_run(first.id))
        somebody_waits(wait_until, 1)
    thread.join()
    reconcile.reconcile()
    for run in (second, third):
        run.refresh_from_db()
    assert (second.status, third.status) == ("cancelled", "running")


def test_failure_is_not_caught_for_an_attempt_that_is_over(bench: Bench) -> None:
    run = begin(bench, node("a", catch=Catch(result=1)))
    task = task_of(run, "a")
    held = claim(task.id, 1, bench.session.id)
    assert held is not None
    old = reports.waiting_task(task.id, held.fence)
    bench.reborn()
    with pytest.raises(ConflictError):
        reports._caught(old, {"type": "x", "message": "y"}, "failed")
    bench.does("work", refuse)
    assert bench.finish(run).status == "completed", "it is caught in its next attempt"


def test_two_redrives_of_one_list_start_each_run_once(bench: Bench) -> None:
    bench.does("work", refuse)
    failed = bench.finish(begin(bench, node("a")))
    assert len(reruns.redrive([failed.id])) == 1
    assert reruns.redrive([failed.id]) == []


def test_claim_that_cannot_be_read_fails_its_task(bench: Bench) -> None:
    bench.does("work", lambda task: "x" * 300_000)
    run = begin(
        bench,
        node("a"),
        node("b", "a", inputs={"value": "${{ tasks.a.result }}"}),
        node("c", "a", capability="other", condition="tasks.a.result != ''"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.deciding.settle", lambda ids: None)
        bench.step(task_of(run, "a"))
    Payload.objects.all().delete()
    bench.step(task_of(run, "b"))
    reconcile.reconcile()
    assert statuses(run) == {"a": "completed", "b": "failed", "c": "failed"}


def test_one_row_that_breaks_stops_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    odd, sound = begin(bench, node("a")), begin(bench, node("a"))
    Task.objects.update(losses=5)
    for run in (odd, sound):
        assert claim(task_of(run, "a").id, 1, bench.session.id)
    broken = task_of(odd, "a").id

    def give_up(task_id: UUID, *args: Any, **named: Any) -> bool:
        if task_id == broken:
            raise ZeroDivisionError("an odd row")
        return reports.give_up(task_id, *args, **named)

    monkeypatch.setattr(reconcile, "give_up", give_up)
    bench.reborn()
    assert statuses(odd) | statuses(sound) == {"a": "failed"}


def test_resuming_one_run_hints_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    other = begin(bench, *(node(f"t{n}") for n in range(3)))
    other.tasks.update(hinted_at=timezone.now() - timedelta(minutes=1))
    run = begin(bench, node("a"))
    control.pause_run(run.id)
    sent: list[UUID] = []
    monkeypatch.setattr(
        "tasks.dispatch._send", lambda due, **_: sent.extend(one.run_id for one in due)
    )
    control.resume_run(run.id)
    assert sent == [run.id]


def test_nobody_is_late_while_the_run_is_paused(bench: Bench) -> None:
    run = begin(bench, node("a", queue_timeout_s=5.0))
    control.pause_run(run.id)
    run.tasks.update(ready_at=F("ready_at") - timedelta(minutes=1))
    reconcile.reconcile()
    assert statuses(run) == {"a": "queued"}


def test_queue_timeout_begins_when_the_slot_is_free(bench: Bench) -> None:
    slot = Concurrency("k")
    first = begin(bench, node("a", concurrency=slot))
    second = begin(bench, node("b", concurrency=slot, queue_timeout_s=60.0))
    second.tasks.update(ready_at=F("ready_at") - timedelta(minutes=10))
    bench.finish(first)
    reconcile.reconcile()
    assert statuses(second) == {"b": "queued"}


def test_task_of_finally_that_was_cancelled_early(bench: Bench) -> None:
    run = begin(bench, node("a"), epilogue=[node("late"), node("after", "late", join="all_done")])
    control.cancel_task(task_of(run, "late").id)
    bench.finish(run)
    reconcile.reconcile()
    bench.finish(run)
    assert statuses(run)["after"] == "completed"
    assert run.status == "cancelled"


def test_undo_is_hinted_to_workers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    def work(context: Context) -> int:
        if context.key == "c":
            raise HandlerError("no", retryable=False)
        return 1

    bench.does("work", work)
    undo = Undo("work")
    run = begin(bench, node("a", undo=undo), node("b", "a", undo=undo), node("c", "b"))
    monkeypatch.setattr(dispatch, "_slots", lambda queues: dict.fromkeys(queues, 1))
    monkeypatch.setattr("tasks.canvas.send", lambda plan, addresses: sent.append(plan))
    for key in "abc":
        bench.step(task_of(run, key))
    assert statuses(run)["undo b"] == "queued"
    assert [part.run for part in sent[-1]] == [(2_000_000_000,)]


def test_long_chain_of_skips_needs_no_deep_stack(bench: Bench) -> None:
    nodes = [node("t0", condition="false")]
    nodes += [node(f"t{n}", f"t{n - 1}", join="all_done", condition="false") for n in range(1, 150)]
    run = begin(bench, *nodes)
    run.refresh_from_db()
    assert (run.status, set(statuses(run).values())) == ("completed", {"skipped"})


def test_what_cannot_begin_fails_whatever_the_reason(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(task: Any) -> None:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(items, "expand", broken)
    run = begin(bench, node("each", for_each=[1]))
    run.refresh_from_db()
    assert (run.status, error_of(run)["type"]) == ("failed", "internal")


def test_sub_workflow_whose_key_is_taken_fails_its_task(bench: Bench) -> None:
    text = """
name: one
concurrency: {key: k, limit: 1, on_conflict: reject}
tasks: {a: {capability: work}}
"""
    registry.upload(bench.project, parse(text))
    registry.execute(bench.project, "one", inputs={})
    run = begin(bench, node("sub", uses="workflow:one", capability=""))
    run.refresh_from_db()
    assert error_of(run)["type"] == "concurrency"


def test_one_broken_repair_stops_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tasks.limits.admit_all", broken)
    run = begin(bench, node("a"), epilogue=[node("late")])
    with monkeypatch.context() as patched:
        patched.setattr("tasks.epilogue.go_on", lambda run_id: None)
        bench.finish(run)
    reconcile.reconcile()
    assert bench.finish(run).status == "completed"


def test_slot_is_held_until_a_cancelled_task_is_let_go(bench: Bench) -> None:
    slot = Concurrency("k")
    seen: list[str] = []

    def work(context: Context) -> None:
        if context.key == "a":
            control.cancel_task(context.task_id)
            seen.append(statuses(run)["b"])

    bench.does("work", work)
    run = begin(bench, node("a", concurrency=slot), node("b", concurrency=slot))
    bench.step(task_of(run, "a"))
    assert seen == ["waiting"]
    assert statuses(run)["b"] == "queued"


def test_newest_run_takes_the_place_although_its_starter_died(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = Concurrency("k", on_conflict="cancel_oldest")
    old = begin(bench, node("a"), concurrency=newest)
    with monkeypatch.context() as patched:
        patched.setattr(control, "admit_runs", lambda project_id, key: None)
        new = begin(bench, node("a"), concurrency=newest)
    reconcile.reconcile()
    old.refresh_from_db()
    new.refresh_from_db()
    assert (old.status, new.status) == ("cancelled", "running")


def test_client_cannot_end_a_wait_with_the_platforms_fence(bench: Bench) -> None:
    run = begin(bench, node("ok", uses="approval", capability=""))
    for fence in range(3):
        with pytest.raises(ConflictError):
            complete(task_of(run, "ok").id, fence, {"approved": True})
        with pytest.raises(ConflictError):
            reports.fail(task_of(run, "ok").id, fence, {"type": "x", "message": "y"})
    assert statuses(run) == {"ok": "waiting"}


def test_items_read_only_what_they_use(bench: Bench) -> None:
    run = begin(
        bench,
        node("list"),
        node(
            "each", "list", for_each="${{ [tasks.list.result.did] }}", inputs={"i": "${{ item }}"}
        ),
    )
    bench.step(task_of(run, "list"))
    assert task_of(run, "each").reads == [0]
    assert Task.objects.get(key="each[0]").reads == []


def test_task_is_announced_when_an_agent_that_looks_can_have_it(
    bench: Bench, wait_until: WaitUntil
) -> None:
    queue = submit_task(bench.project, Node("first", "dig")).queue
    url, heard = os.environ["OPSCORE_DATABASE_URL"], []
    with psycopg.connect(url, autocommit=True) as listener, psycopg.connect(url) as holder:
        listener.add_notify_handler(lambda told: heard.append(told.payload))
        listener.execute(f"LISTEN {READY_CHANNEL}")
        holder.execute(turns.LOCK_TURNS, {"queues": [queue]})
        submitting = in_thread(lambda: submit_task(bench.project, Node("second", "dig")))
        somebody_waits(wait_until, 1)
        # It has no turn yet, and is about to be locked for getting one.
        listener.execute("SELECT 1")
        assert heard == []
        holder.rollback()
        submitting.join()
        listener.execute("SELECT 1")
        assert heard == ["dig"]
