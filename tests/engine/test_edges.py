"""Rare ends of the verbs: what is not there, too large, or not what was expected."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from agents.handlers import Context, HandlerError
from opscore.config import load_config
from opscore.database import query
from opscore.errors import ConflictError, InvalidError, NotFoundError
from opscore.ids import uuid7
from opscore.models import Event, Project
from tasks import control, epilogue, inbox, items, reconcile, reruns, subruns
from tasks.claims import claim
from tasks.flow import Catch, Concurrency, Repeat, Undo
from tasks.models import Run, Task
from tasks.reports import complete
from tasks.retries import RetryPolicy
from tasks.transitions import runs
from tests.engine.conftest import Bench, error_of
from tests.engine.flows import begin, node, refuse, statuses, task_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep nothing above a kilobyte, and little of that inline."""
    monkeypatch.setattr(load_config(), "max_result_bytes", 1000)
    monkeypatch.setattr(load_config(), "inline_result_bytes", 100)


def test_what_is_not_there(db: None) -> None:
    nothing = uuid7()
    for verb in (
        lambda: inbox.send(nothing, "x", 1),
        lambda: inbox.send_to_task(nothing, 1),
        lambda: inbox.decide(nothing, "approve", by="me"),
        lambda: control.pause_run(nothing),
        lambda: reruns.rerun(nothing),
    ):
        with pytest.raises(NotFoundError):
            verb()
    subruns.report(nothing)
    epilogue.go_on(nothing)
    assert reruns.redrive([]) == []


@pytest.mark.parametrize("name", ["", "x" * 101])
def test_signal_needs_a_name(bench: Bench, name: str) -> None:
    with pytest.raises(InvalidError):
        inbox.send(begin(bench, node("a")).id, name, 1)


def test_payload_that_cannot_be_kept(bench: Bench) -> None:
    run = begin(bench, node("s", uses="signal", capability=""))
    for send in (
        lambda: inbox.send(run.id, "s", {"a": "\0"}),
        lambda: inbox.send_to_task(task_of(run, "s").id, float("nan")),
    ):
        with pytest.raises(InvalidError, match="payload"):
            send()
    assert statuses(run) == {"s": "waiting"}


def test_signal_whose_news_got_lost_is_delivered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(bench, node("s", uses="signal", capability=""))
    with monkeypatch.context() as patched:
        patched.setattr(inbox, "deliver", lambda run_id, name: None)
        inbox.send(run.id, "s", 7)
    reconcile.reconcile()
    assert task_of(run, "s").result == 7


@pytest.mark.parametrize(
    ("uses", "inputs", "said"),
    [
        ("wait", {"duration": "soon"}, "duration"),
        ("approval", {"message": 7}, "message must be text"),
        ("approval", {"expires": -1}, "expires"),
    ],
)
def test_wait_that_makes_no_sense_fails(
    bench: Bench, uses: str, inputs: dict[str, Any], said: str
) -> None:
    run = begin(bench, node("a", uses=uses, inputs=inputs, capability=""))
    run.refresh_from_db()
    assert (run.status, said in error_of(run)["message"]) == ("failed", True)


def test_wait_until_a_time_without_zone_is_utc(bench: Bench) -> None:
    run = begin(bench, node("a", uses="wait", inputs={"until": "2020-01-01"}, capability=""))
    reconcile.reconcile()
    assert statuses(run) == {"a": "completed"}


@pytest.mark.usefixtures("tight")
def test_lists_by_reference_and_lists_too_large(bench: Bench) -> None:
    bench.does("work", lambda context: context.inputs["n"])
    items = ["x" * 60] * 5
    each = node("each", for_each="${{ inputs.items }}", inputs={"n": "${{ item }}"}, max_parallel=2)
    run = bench.finish(begin(bench, each, inputs={"items": items}))
    task = task_of(run, "each")
    assert (run.status, task.items, task.items_ref is not None) == ("completed", None, True)
    bench.does("work", lambda context: "y" * 300)
    run = bench.finish(begin(bench, each, inputs={"items": items}))
    assert error_of(run)["type"] == "result_too_large"
    run = begin(bench, node("each", for_each="${{ inputs.n.map(i, i) }}"), inputs={"n": [0] * 600})
    run.refresh_from_db()
    assert error_of(run)["type"] == "result_too_large"


def test_list_of_too_many_items_fails(bench: Bench) -> None:
    run = begin(bench, node("each", for_each=[0] * 10_001))
    run.refresh_from_db()
    assert "10001 items" in error_of(run)["message"]


def test_outputs_of_a_list_that_cannot_be_evaluated(bench: Bench) -> None:
    each = node("each", for_each=[1], outputs={"no": "${{ result.nothing }}"})
    assert error_of(bench.finish(begin(bench, each)))["type"] == "expression"


def test_loop_whose_condition_cannot_be_evaluated(bench: Bench) -> None:
    run = begin(bench, node("a", repeat=Repeat(until="result.nothing > 1", max=3)))
    assert error_of(bench.finish(run))["type"] == "expression"


@pytest.mark.usefixtures("tight")
def test_loop_whose_previous_result_is_too_large(bench: Bench) -> None:
    bench.does("work", lambda context: "x" * 990)
    looped = node("a", repeat=Repeat(max=2), inputs={"p": "${{ previous }}"})
    assert error_of(bench.finish(begin(bench, looped)))["type"] == "result_too_large"


def test_catch_whose_result_cannot_be_evaluated(bench: Bench) -> None:
    bench.does("work", refuse)
    run = bench.finish(begin(bench, node("a", catch=Catch(result="${{ error.nothing }}"))))
    assert (run.status, error_of(run)["type"]) == ("failed", "expression")
    assert "no luck; then" in error_of(run)["message"]


@pytest.mark.usefixtures("tight")
def test_wait_that_ends_with_too_much_fails(bench: Bench) -> None:
    run = begin(bench, node("s", uses="signal", capability="", outputs={"o": "${{ result.no }}"}))
    inbox.send(run.id, "s", 1)
    run.refresh_from_db()
    assert error_of(run)["type"] == "expression"


def test_report_of_the_unknown_is_refused(bench: Bench) -> None:
    with pytest.raises(ConflictError):
        complete(uuid7(), 1, None)


def test_strays_are_cancelled_and_nothing_else(bench: Bench, project: Project) -> None:
    slot = Concurrency("k")
    run = begin(bench, node("a", concurrency=slot), node("each", for_each=[1, 2]))
    other = begin(bench, node("b", concurrency=slot))
    assert control.cancel_strays(100) is False
    Task.objects.filter(key="each").update(status="completed", waits_for="")
    control.cancel_strays(100)
    assert statuses(run)["each[0]"] == "cancelled"
    assert statuses(run)["a"] == "queued"
    done = task_of(run, "a").created_at
    Run.objects.filter(id=run.id).update(status="completed", completed_at=done)
    control.cancel_strays(100)
    assert statuses(run)["a"] == "cancelled"
    assert statuses(other) == {"b": "queued"}


def test_rerun_stands_in_line_too(bench: Bench) -> None:
    slot = Concurrency("k")
    bench.does("work", refuse)
    run = bench.finish(begin(bench, node("a"), concurrency=slot))
    first, second = reruns.rerun(run.id), reruns.rerun(run.id)
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.status, second.status) == ("running", "created")
    bench.finish(first)
    second.refresh_from_db()
    assert second.status == "running"


def test_failure_before_the_beginning_is_caught_and_retried_too(bench: Bench) -> None:
    slow = begin(
        bench,
        node("a", queue_timeout_s=60, catch=Catch(on=("queue_timeout",), result=1)),
        node("b", queue_timeout_s=60, retry=RetryPolicy(limit=1, initial_s=1e6)),
    )
    slow.tasks.update(ready_at=timezone.now() - timedelta(minutes=2))
    reconcile.reconcile()
    assert statuses(slow) == {"a": "completed", "b": "retrying"}
    assert task_of(slow, "b").attempts.get().outcome == "timeout"
    taken = Concurrency(key="k", on_conflict="reject")
    begin(bench, node("holder", concurrency=taken))
    refused = begin(bench, node("a", concurrency=taken, catch=Catch(on=("concurrency",), result=1)))
    assert statuses(refused) == {"a": "completed"}
    broken = begin(bench, node("a", condition="1 / 0 == 1", catch=Catch(result=1)))
    assert statuses(broken) == {"a": "completed"}
    absent = begin(bench, node("a", uses="workflow:none", capability="", catch=Catch(result=1)))
    assert statuses(absent) == {"a": "completed"}


def test_what_is_caught_leaves_a_trace(bench: Bench) -> None:
    bench.does("work", refuse)
    run = bench.finish(begin(bench, node("a", catch=Catch(result=1))))
    assert task_of(run, "a").attempts.get().outcome == "failed"
    assert Event.objects.get(run_id=run.id, kind="task.caught").data["message"]


def test_item_that_ran_when_its_list_ended_leaves_a_trace(bench: Bench) -> None:
    run = begin(bench, node("each", for_each=[1, 2]))
    assert claim(task_of(run, "each[1]").id, 1, bench.session.id)
    bench.does("work", refuse)
    bench.step(task_of(run, "each[0]"))
    item = task_of(run, "each[1]")
    assert (item.status, item.attempts.get().outcome) == ("cancelled", "cancelled")
    assert error_of(item)["message"] == "Its list has ended."


@pytest.mark.parametrize("lost", ["a failure", "room"])
def test_lost_news_of_a_list_is_made_good_while_items_are_open(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    if lost == "a failure":
        bench.does("work", refuse)
    run = begin(bench, node("each", for_each=list(range(6)), max_parallel=4))
    with monkeypatch.context() as patch:
        patch.setattr(items, "gather", lambda task_id: None)
        for n in range(3):
            bench.step(task_of(run, f"each[{n}]"))
    reconcile.reconcile()
    if lost == "a failure":
        assert statuses(run)["each"] == "failed"
    else:
        assert run.tasks.filter(parent_id__isnull=False).count() == 6


def test_agent_may_call_its_error_cancelled(bench: Bench) -> None:
    def stop(task: Context) -> None:
        raise HandlerError("the order was withdrawn", type="cancelled")

    bench.does("work", stop)
    assert bench.finish(begin(bench, node("a"))).status == "failed"


def test_forced_cancel_cut_short_is_finished_by_force(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    undone: list[str] = []
    bench.does("undo", lambda task: undone.append(task.key))
    run = begin(bench, node("a", undo=Undo("undo")), node("b", "a"), epilogue=[node("late")])
    bench.step(task_of(run, "a"))
    with monkeypatch.context() as patch:
        patch.setattr(control, "finish_cancel", lambda *args: None)
        control.cancel_run(run.id, "ann", force=True)
    reconcile.reconcile()
    bench.finish(run)
    assert (run.status, undone) == ("cancelled", [])
    assert statuses(run) == {"a": "completed", "b": "cancelled", "late": "cancelled"}


def test_cancel_that_is_finished_twice_is_noted_once(bench: Bench) -> None:
    run = begin(bench, node("a"), epilogue=[node("late")])
    query(runs.CANCEL_RUN_FLAG, {"id": run.id, "force": False})
    for _ in range(2):
        query(runs.CANCEL_RUN, {"id": run.id, "actor": "ann", "grace_s": 1.0})
    assert Event.objects.filter(run_id=run.id, kind="run.cancelled").count() == 1
