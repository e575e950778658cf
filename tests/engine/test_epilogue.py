"""What happens instead of or after a failure: catch, undo, finally."""

from __future__ import annotations

from typing import Any

import pytest

from agents.handlers import Context, HandlerError
from opscore.database import query
from tasks import control, epilogue, reconcile
from tasks.flow import Catch, Undo
from tasks.models import Run
from tasks.retries import RetryPolicy
from tasks.transitions import runs
from tests.engine.conftest import Bench, error_of
from tests.engine.flows import begin, node, refuse, statuses, task_of

pytestmark = pytest.mark.django_db(transaction=True)


# ------------------------------------------------------------ catch, undo, finally
def test_catch_lets_another_capability_make_the_result(bench: Bench) -> None:
    bench.does("work", refuse)
    bench.does("other", lambda context: context.inputs)
    catch = Catch(capability="other", inputs={"why": "${{ error.type }}"})
    run = begin(bench, node("a", catch=catch, retry=RetryPolicy(limit=1, initial_s=0)))
    bench.finish(run)
    task = task_of(run, "a")
    assert (run.status, task.result) == ("completed", {"why": "unlucky"})
    assert task.attempts.count() == 2
    assert task.names["caught"]["capability"] == "work"


def test_catch_that_fails_fails_the_task(bench: Bench) -> None:
    bench.does("work", refuse)
    run = bench.finish(begin(bench, node("a", catch=Catch(capability="work"))))
    assert (run.status, error_of(run)["type"]) == ("failed", "unlucky")


def test_catch_of_other_errors_does_not_catch(bench: Bench) -> None:
    bench.does("work", refuse)
    run = begin(bench, node("a", catch=Catch(on=("timeout*",), result=1)))
    assert bench.finish(run).status == "failed"


def test_finally_runs_after_success_failure_and_cancel(bench: Bench) -> None:
    bench.does("other", refuse)
    late = (node("clean"), node("tell", "clean"))
    good = begin(bench, node("a"), epilogue=late)
    bench.step(task_of(good, "a"))
    assert statuses(good) == {"a": "completed", "clean": "queued", "tell": "pending"}
    assert bench.finish(good).status == "completed"
    bad = bench.finish(begin(bench, node("a", capability="other"), epilogue=late))
    assert statuses(bad) == {"a": "failed", "clean": "completed", "tell": "completed"}
    assert bad.status == "failed"
    gone = begin(bench, node("a"), epilogue=late)
    control.cancel_run(gone.id)
    gone.refresh_from_db()
    assert (gone.status, gone.phase) == ("cancelling", "finally")
    assert bench.finish(gone).status == "cancelled"
    assert statuses(gone) == {"a": "cancelled", "clean": "completed", "tell": "completed"}


def test_failure_in_finally_fails_the_run(bench: Bench) -> None:
    bench.does("other", refuse)
    run = bench.finish(begin(bench, node("a"), epilogue=[node("clean", capability="other")]))
    assert (run.status, error_of(run)["task"]) == ("failed", "clean")


def test_forced_cancel_leaves_out_finally(bench: Bench) -> None:
    run = begin(bench, node("a"), epilogue=[node("clean")])
    control.cancel_run(run.id, force=True)
    run.refresh_from_db()
    assert (run.status, statuses(run)) == ("cancelled", {"a": "cancelled", "clean": "cancelled"})


def test_undo_takes_back_in_reverse_order_of_completion(bench: Bench) -> None:
    taken: list[Any] = []
    bench.does("other", refuse)
    bench.does("undo", lambda context: taken.append(context.inputs["id"]))
    undo = Undo(capability="undo", inputs={"id": "${{ result.did }}"})
    run = begin(
        bench,
        node("a", undo=undo),
        node("b", "a", undo=undo),
        node("c", "b"),
        node("d", "c", capability="other", undo=undo),
        epilogue=[node("late")],
    )
    bench.finish(run)
    assert taken == ["b", "a"]
    assert statuses(run)["undo b"] == "completed"
    assert (run.status, statuses(run)["late"]) == ("failed", "completed")


def test_nothing_is_undone_when_the_run_succeeds(bench: Bench) -> None:
    run = bench.finish(begin(bench, node("a", undo=Undo(capability="undo"))))
    assert (run.status, statuses(run)) == ("completed", {"a": "completed"})


def test_undo_that_fails_does_not_stop_the_others(bench: Bench) -> None:
    taken: list[str] = []

    def undo(context: Context) -> None:
        if context.inputs["id"] == "b":
            raise HandlerError("cannot", retryable=False)
        taken.append(context.inputs["id"])

    bench.does("other", refuse)
    bench.does("undo", undo)
    take = Undo(capability="undo", inputs={"id": "${{ result.did }}"})
    run = begin(
        bench, node("a", undo=take), node("b", "a", undo=take), node("c", "b", capability="other")
    )
    bench.finish(run)
    assert (taken, run.status, error_of(run)["task"]) == (["a"], "failed", "c")
    assert statuses(run)["undo b"] == "failed"


def test_epilogue_goes_on_after_a_crash_in_between(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(bench, node("a"), epilogue=[node("late")])
    with monkeypatch.context() as patched:
        patched.setattr("tasks.epilogue.go_on", lambda run_id: None)
        bench.finish(run)
    assert (run.status, run.open_sinks) == ("running", 0)
    reconcile.reconcile()
    assert bench.finish(run).status == "completed"


def test_what_a_catch_stood_in_for_is_not_taken_back(bench: Bench) -> None:
    bench.does("work", refuse)
    bench.does("other", lambda context: "instead")
    undo = Undo("undo")
    run = begin(
        bench,
        node("a", undo=undo, catch=Catch(result=1)),
        node("b", undo=undo, catch=Catch(capability="other")),
        node("c", "a", "b"),
    )
    bench.finish(run)
    assert statuses(run) == {"a": "completed", "b": "completed", "c": "failed"}
    assert run.status == "failed"


def test_cancel_that_meets_the_end_of_a_run_still_takes_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    undone: list[str] = []
    bench.does("undo", lambda task: undone.append(task.key))
    run = begin(bench, node("a", undo=Undo("undo")))
    real = epilogue._next

    def between(found: Run) -> None:
        """Another process's cancel arrives after the run's row was read."""
        monkeypatch.setattr(epilogue, "_next", real)
        query(runs.CANCEL_RUN_FLAG, {"id": found.id, "force": False})
        real(found)
        control.finish_cancel(found.id)

    monkeypatch.setattr(epilogue, "_next", between)
    bench.step(task_of(run, "a"))
    reconcile.reconcile()
    bench.finish(run)
    assert (run.status, undone) == ("cancelled", ["undo a"])
