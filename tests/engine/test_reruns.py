"""Running again: a new run that keeps what need not be redone."""

from __future__ import annotations

from typing import Any

import pytest

from agents.handlers import Context, HandlerError
from opscore.errors import ConflictError, InvalidError
from tasks import control, reruns
from tasks.flow import Catch, Undo
from tasks.models import Run
from tasks.results import outputs_of
from tests.engine.conftest import Bench
from tests.engine.flows import begin, node, refuse, statuses, task_of

pytestmark = pytest.mark.django_db(transaction=True)


def test_rerun_keeps_results_and_does_what_failed(bench: Bench) -> None:
    done: list[str] = []
    broken = {"b"}

    def work(context: Context) -> Any:
        if context.key in broken:
            raise HandlerError("no")
        done.append(context.key)
        return context.key

    bench.does("work", work)
    run = begin(
        bench,
        node("a"),
        node("b", "a"),
        node("c", "b", inputs={"a": "${{ tasks.a.result }}"}),
        node("no", "a", condition="false"),
        node("d", "a", "no", join="none_failed"),
        outputs={"c": "${{ tasks.c.result }}"},
    )
    assert bench.finish(run).status == "failed"
    broken.clear()
    done.clear()
    again = reruns.rerun(run.id, actor="me")
    assert (again.rerun_of, again.id != run.id) == (run.id, True)
    bench.finish(again)
    assert (again.status, done) == ("completed", ["b", "c"])
    assert outputs_of(again) == {"c": "c"}
    assert again.tasks.get(key="a").result == "a"
    run.refresh_from_db()
    assert run.status == "failed", "the old run never changes"


def test_rerun_from_any_task_with_other_inputs(bench: Bench) -> None:
    bench.does("work", lambda context: context.inputs.get("n"))
    n = {"n": "${{ inputs.n }}"}
    run = begin(bench, node("a", inputs=n), node("b", "a", inputs=n), inputs={"n": 1})
    bench.finish(run)
    with pytest.raises(ConflictError, match="Nothing in this run failed"):
        reruns.rerun(run.id)
    again = bench.finish(reruns.rerun(run.id, keys=["b"], inputs={"n": 2}))
    assert [again.tasks.get(key=key).result for key in ("a", "b")] == [1, 2]
    with pytest.raises(InvalidError):
        reruns.rerun(run.id, keys=["x"])


def test_live_run_is_not_rerun(bench: Bench) -> None:
    with pytest.raises(ConflictError, match="running"):
        reruns.rerun(begin(bench, node("a")).id)


def test_rerun_of_lists_conditions_and_what_was_caught(bench: Bench) -> None:
    bench.does("other", lambda context: "caught")
    bench.does("work", refuse)
    run = begin(
        bench,
        node("each", for_each=[1, 2], on_item_failure="fail_at_end"),
        node("a", catch=Catch(capability="other")),
        node("b", "a", "each", condition="true"),
        epilogue=[node("late", capability="other")],
    )
    bench.finish(run)
    assert statuses(run)["a"] == "completed"
    bench.does("work", lambda context: "fine")
    again = bench.finish(reruns.rerun(run.id, keys=["a", "each"]))
    assert again.status == "completed"
    assert again.tasks.get(key="a").result == "fine"
    assert again.tasks.get(key="each").result == ["fine", "fine"]
    assert statuses(again)["late"] == "completed"


def test_redrive_starts_each_failed_run_again(bench: Bench) -> None:
    bench.does("work", refuse)
    failed = [bench.finish(begin(bench, node("a"))).id for _ in range(3)]
    good = begin(bench, node("a"))
    started = reruns.redrive([*failed, good.id])
    assert [run.rerun_of for run in started] == failed
    assert Run.objects.filter(status="running").count() == 4


def test_what_was_taken_back_is_done_again(bench: Bench) -> None:
    bench.does("other", refuse)
    undo = Undo("undo", inputs={"id": "${{ result.did }}"})
    bench.does("undo", lambda context: context.inputs["id"])
    run = begin(
        bench,
        node("free"),
        node("book", undo=undo),
        node("each", for_each=[1], undo=undo),
        node("pay", "book", capability="other"),
    )
    assert bench.finish(run).status == "failed"
    assert {"undo book", "undo each[0]"} <= set(statuses(run))
    bench.does("other", lambda context: "paid")
    again = reruns.rerun(run.id)
    assert statuses(again) == {
        "free": "completed",
        "book": "queued",
        "each": "waiting",
        "each[0]": "queued",
        "pay": "pending",
    }
    assert bench.finish(again).status == "completed"


@pytest.mark.parametrize("first", ["x", "f"])
def test_rerun_from_a_task_beside_a_failed_branch_does_that_branch_too(
    bench: Bench, first: str
) -> None:
    bench.does("other", refuse)
    run = bench.finish(begin(bench, node("x"), node("f", capability="other"), node("s", "f")))
    bench.does("other", lambda task: 1)
    again = reruns.rerun(run.id, keys=["x"])
    assert statuses(again) == {"x": "queued", "f": "queued", "s": "pending"}
    bench.step(task_of(again, first))
    assert bench.finish(again).status == "completed"
    assert set(statuses(again).values()) == {"completed"}


def test_what_a_catch_stood_in_for_is_remembered_by_reruns(bench: Bench) -> None:
    undone: list[str] = []
    bench.does("work", refuse)
    bench.does("other", refuse)
    bench.does("undo", lambda task: undone.append(task.key))
    caught = node("a", undo=Undo("undo"), catch=Catch(result=1))
    run = bench.finish(begin(bench, caught, node("c", "a", capability="other")))
    assert statuses(run) == {"a": "completed", "c": "failed"}
    again = bench.finish(reruns.rerun(run.id))
    assert (again.status, undone) == ("failed", [])


def test_rerun_of_a_rerun_begins_with_the_original_task(bench: Bench) -> None:
    bench.does("work", refuse)
    bench.does("other", lambda task: "caught")
    run = begin(bench, node("a", catch=Catch(capability="other")), node("b", capability="other"))
    bench.finish(run)
    again = bench.finish(reruns.rerun(run.id, keys=["b"]))
    bench.does("work", lambda task: "fine")
    last = bench.finish(reruns.rerun(again.id, keys=["a"]))
    assert last.tasks.get(key="a").result == "fine"


def test_rerun_of_what_was_cancelled_by_force_has_its_epilogue_again(bench: Bench) -> None:
    run = begin(bench, node("a"), epilogue=[node("late")])
    control.cancel_run(run.id, force=True)
    run.refresh_from_db()
    assert (run.status, statuses(run)["late"]) == ("cancelled", "cancelled")
    again = bench.finish(reruns.rerun(run.id))
    assert (again.status, statuses(again)["late"]) == ("completed", "completed")
