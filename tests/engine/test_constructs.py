"""Joins, conditions, lists, loops and waits on the engine: one promise a test."""

from __future__ import annotations

from typing import Any

import pytest

from agents.handlers import Context, HandlerError
from opscore.errors import ConflictError, ForbiddenError
from tasks import inbox, reconcile
from tasks.flow import Catch, Repeat
from tasks.results import outputs_of
from tasks.retries import RetryPolicy
from tests.engine.conftest import Bench, error_of
from tests.engine.flows import begin, node, pass_time, refuse, statuses, task_of

pytestmark = pytest.mark.django_db(transaction=True)


# ------------------------------------------------------------ joins and conditions
@pytest.mark.parametrize(
    ("join", "ends", "verdict"),
    [
        ("all_success", (2, 0, 0), "completed"),
        ("all_success", (1, 1, 0), "skipped"),
        ("all_success", (1, 0, 1), "skipped"),
        ("none_failed", (1, 0, 1), "completed"),
        ("none_failed", (0, 0, 2), "completed"),
        ("none_failed", (1, 1, 1), "skipped"),
        ("all_done", (1, 1, 1), "completed"),
        ("all_done", (0, 2, 0), "completed"),
        ("any", (1, 1, 1), "completed"),
        ("any", (0, 1, 1), "skipped"),
    ],
)
def test_join_rule_says_whether_a_task_runs(
    bench: Bench, join: str, ends: tuple[int, int, int], verdict: str
) -> None:
    good, bad, skip = ends
    bench.does("other", refuse)
    needs = [node(f"good{n}") for n in range(good)]
    needs += [node(f"bad{n}", capability="other") for n in range(bad)]
    needs += [node(f"skip{n}", condition="false") for n in range(skip)]
    run = begin(
        bench, *needs, node("join", *(one.key for one in needs), join=join), node("z", "join")
    )
    run = bench.finish(run)
    assert statuses(run)["join"] == verdict
    assert statuses(run)["z"] == ("completed" if verdict == "completed" else "skipped")
    assert run.status == ("failed" if bad else "completed")
    assert run.open_sinks == 0


def test_any_runs_at_the_first_success_and_the_run_waits_for_the_others(bench: Bench) -> None:
    run = begin(bench, node("a"), node("b"), node("first", "a", "b", join="any"))
    bench.step(task_of(run, "a"))
    assert statuses(run) == {"a": "completed", "b": "queued", "first": "queued"}
    bench.step(task_of(run, "first"))
    run.refresh_from_db()
    assert run.status == "running"
    bench.finish(run)
    assert run.status == "completed"


def test_condition_is_false_and_no_message_is_sent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr("tasks.canvas.send", lambda *args: sent.append(args))
    run = begin(
        bench,
        node("a"),
        node("yes", "a", condition="tasks.a.result.did == 'a'"),
        node("no", "a", condition="${{ inputs.deep }}"),
        node("below", "no"),
        inputs={"deep": False},
    )
    run = bench.finish(run)
    assert statuses(run) == {
        "a": "completed",
        "yes": "completed",
        "no": "skipped",
        "below": "skipped",
    }
    assert error_of(task_of(run, "no"))["type"] == "condition"
    assert error_of(task_of(run, "below"))["type"] == "upstream_skipped"
    assert run.status == "completed"
    assert sent == []


def test_condition_that_is_no_bool_fails_the_task(bench: Bench) -> None:
    run = bench.finish(begin(bench, node("a", condition="1 + 1"), node("b", "a")))
    assert statuses(run) == {"a": "failed", "b": "skipped"}
    assert "true or false" in error_of(run)["message"]


def test_outputs_are_evaluated_although_a_branch_was_skipped(bench: Bench) -> None:
    run = begin(
        bench,
        node("a"),
        node("b", condition="false"),
        outputs={"a": "${{ tasks.a.result.did }}", "b": "${{ tasks.b.result }}"},
    )
    assert outputs_of(bench.finish(run)) == {"a": "a", "b": None}


# ------------------------------------------------------------ for_each
def test_for_each_keeps_the_order_of_the_items(bench: Bench) -> None:
    bench.does("work", lambda context: context.inputs.get("n", 0) * 10)
    run = begin(
        bench,
        node("each", for_each="${{ inputs.list }}", inputs={"n": "${{ item + index }}"}),
        node("sum", "each", inputs={"n": "${{ tasks.each.result[2] }}"}),
        inputs={"list": [1, 2, 3]},
    )
    bench.finish(run)
    task = task_of(run, "each")
    assert (task.status, task.result, task.item_count) == ("completed", [10, 30, 50], 3)
    assert task_of(run, "sum").result == 500
    assert statuses(run)["each[1]"] == "completed"


def test_for_each_over_nothing_completes(bench: Bench) -> None:
    run = bench.finish(begin(bench, node("each", for_each=[]), node("after", "each")))
    assert statuses(run) == {"each": "completed", "after": "completed"}
    assert task_of(run, "each").result == []


@pytest.mark.parametrize("items", [7, "text", {"a": 1}])
def test_for_each_over_no_list_fails(bench: Bench, items: Any) -> None:
    run = begin(bench, node("each", for_each="${{ inputs.items }}"), inputs={"items": items})
    assert "must be a list" in error_of(bench.finish(run))["message"]


def test_max_parallel_bounds_the_rows_that_exist(bench: Bench) -> None:
    run = begin(bench, node("each", for_each=list(range(10)), max_parallel=2))
    items = run.tasks.filter(parent_id__isnull=False)
    assert items.count() == 2
    bench.step(items.order_by("item_index")[0])
    assert items.count() == 3
    assert items.filter(status="queued").count() == 2
    bench.finish(run)
    assert (run.status, items.count()) == ("completed", 10)


def fails_at(*bad: int) -> Any:
    def work(context: Context) -> Any:
        if context.inputs["n"] in bad:
            raise HandlerError("odd", type="odd")
        return context.inputs["n"]

    return work


@pytest.mark.parametrize(
    ("policy", "status", "result", "done"),
    [
        ("fail_fast", "failed", None, 1),
        ("fail_at_end", "failed", None, 3),
        ("continue", "completed", [0, None, 2, 3], 3),
    ],
)
def test_partial_failure_policy(
    bench: Bench, policy: str, status: str, result: Any, done: int
) -> None:
    bench.does("work", fails_at(1))
    each = node(
        "each",
        for_each=[0, 1, 2, 3],
        max_parallel=1,
        on_item_failure=policy,
        inputs={"n": "${{ item }}"},
    )
    run = bench.finish(begin(bench, each))
    task = task_of(run, "each")
    assert (task.status, task.result, run.status) == (status, result, status)
    assert run.tasks.filter(parent_id=task.id, status="completed").count() == done
    if status == "failed":
        assert error_of(run)["type"] == "odd"
        assert error_of(run)["task"] == "each"
        assert "item 1: odd" in error_of(run)["message"]


def test_retry_repeat_and_catch_belong_to_each_item(bench: Bench) -> None:
    bench.does("work", fails_at(1))
    each = node(
        "each",
        for_each=[0, 1],
        inputs={"n": "${{ item }}"},
        catch=Catch(result="${{ 'not ' + error.type }}"),
    )
    run = bench.finish(begin(bench, each))
    assert task_of(run, "each").result == [0, "not odd"]


def test_crash_after_the_last_item_is_repaired(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(bench, node("each", for_each=[1, 2]), node("after", "each"))
    with monkeypatch.context() as patched:
        patched.setattr("tasks.items.gather", lambda task_id: None)
        bench.finish(run)
    assert statuses(run)["each"] == "waiting"
    reconcile.reconcile()
    assert bench.finish(run).status == "completed"


# ------------------------------------------------------------ repeat
def test_repeat_until_a_condition_holds(bench: Bench) -> None:
    bench.does("work", lambda context: (context.inputs["last"] or 0) + 1)
    repeat = Repeat(until="result >= 3", max=5)
    run = begin(bench, node("poll", repeat=repeat, inputs={"last": "${{ previous }}"}))
    bench.finish(run)
    assert task_of(run, "poll").result == 3
    outcomes = list(task_of(run, "poll").attempts.values_list("outcome", flat=True))
    assert outcomes == ["repeated", "repeated"]


def test_repeat_gives_up_at_its_limit(bench: Bench) -> None:
    run = begin(bench, node("poll", repeat=Repeat(until="false", max=2)))
    assert error_of(bench.finish(run))["type"] == "repeat_limit"


def test_repeat_waits_between_iterations(bench: Bench) -> None:
    run = begin(bench, node("poll", repeat=Repeat(max=2, delay_s=600)))
    bench.finish(run)
    assert statuses(run) == {"poll": "retrying"}
    pass_time(run)
    bench.finish(run)
    assert (run.status, task_of(run, "poll").names["iteration"]) == ("completed", 2)


def test_each_iteration_has_its_own_tries(bench: Bench) -> None:
    failed: set[Any] = set()

    def work(context: Context) -> Any:
        turn = context.inputs["turn"]
        if turn not in failed:
            failed.add(turn)
            raise HandlerError("once")
        return turn

    bench.does("work", work)
    poll = node(
        "poll",
        repeat=Repeat(max=3),
        retry=RetryPolicy(limit=1, initial_s=0),
        inputs={"turn": "${{ iteration }}"},
    )
    assert bench.finish(begin(bench, poll)).status == "completed"


# ------------------------------------------------------------ waits
def test_wait_ends_by_the_databases_time(bench: Bench) -> None:
    run = begin(bench, node("nap", uses="wait", inputs={"duration": 600}), node("after", "nap"))
    assert statuses(run) == {"nap": "waiting", "after": "pending"}
    reconcile.reconcile()
    assert statuses(run)["nap"] == "waiting"
    pass_time(run)
    assert bench.finish(run).status == "completed"


def test_wait_until_a_time_that_has_passed_is_none(bench: Bench) -> None:
    run = begin(bench, node("nap", uses="wait", inputs={"until": "2020-01-01T00:00:00Z"}))
    reconcile.reconcile()
    assert bench.finish(run).status == "completed"


def test_wait_for_nonsense_fails(bench: Bench) -> None:
    run = begin(bench, node("nap", uses="wait", inputs={"until": "soon"}))
    assert "2030-01-31T12:00:00Z" in error_of(bench.finish(run))["message"]


def test_signal_before_and_after_the_task_waits(bench: Bench) -> None:
    run = begin(
        bench,
        node("a"),
        node("paid", "a", uses="signal", inputs={"name": "payment"}),
        node("again", "paid", uses="signal", inputs={"name": "payment"}),
    )
    inbox.send(run.id, "payment", {"n": 1}, "me")
    bench.finish(run)
    assert task_of(run, "paid").result == {"n": 1}
    assert statuses(run)["again"] == "waiting"
    inbox.send(run.id, "payment", 2)
    assert task_of(run, "again").result == 2
    run.refresh_from_db()
    assert run.status == "completed"
    with pytest.raises(ConflictError, match="completed already"):
        inbox.send(run.id, "payment", 3)


def test_signal_times_out(bench: Bench) -> None:
    run = begin(bench, node("paid", uses="signal", timeout_s=60))
    pass_time(run)
    run.refresh_from_db()
    assert (run.status, error_of(run)["type"]) == ("failed", "timeout")


def test_approval_is_decided_once_by_the_right_role(bench: Bench) -> None:
    run = begin(bench, node("ok", uses="approval", inputs={"role": "operator", "message": "?"}))
    task = task_of(run, "ok")
    with pytest.raises(ForbiddenError, match="operator"):
        inbox.decide(task.id, "approve", by="eve", roles=["viewer"])
    inbox.decide(task.id, "approve", by="ann", comment="fine", roles=["operator"])
    task.refresh_from_db()
    assert task.result == {"approved": True, "by": "ann", "comment": "fine"}
    with pytest.raises(ConflictError):
        inbox.decide(task.id, "reject", by="bob")


def test_rejected_approval_fails_and_can_be_caught(bench: Bench) -> None:
    run = begin(
        bench,
        node("ok", uses="approval", catch=Catch(on=("rejected",), result="${{ error.message }}")),
        node("no", uses="approval"),
    )
    for key in ("ok", "no"):
        inbox.decide(task_of(run, key).id, "reject", by="ann", comment="never")
    assert task_of(run, "ok").result == "rejected by ann: never"
    run.refresh_from_db()
    assert (run.status, error_of(run)["task"]) == ("failed", "no")


@pytest.mark.parametrize(
    ("inputs", "status"),
    [({}, "failed"), ({"on_expiry": "approve"}, "completed"), ({"on_expiry": "reject"}, "failed")],
)
def test_approval_expires(bench: Bench, inputs: dict[str, Any], status: str) -> None:
    run = begin(bench, node("ok", uses="approval", inputs={"expires": "10m", **inputs}))
    reconcile.reconcile()
    assert statuses(run) == {"ok": "waiting"}
    pass_time(run)
    assert statuses(run) == {"ok": status}


def test_outside_systems_see_one_key_for_each_work(bench: Bench) -> None:
    seen: list[tuple[str, int]] = []

    def work(context: Context) -> None:
        seen.append((context.idempotency_key.partition("/")[2], context.attempt))
        if len(seen) == 1:
            raise HandlerError("once")
        if context.key == "b":
            raise HandlerError("no", retryable=False)

    bench.does("work", work)
    bench.does("other", work)
    looped = node("a", repeat=Repeat(max=2), retry=RetryPolicy(limit=1, initial_s=0))
    bench.finish(begin(bench, looped))
    assert seen == [("", 1), ("", 2), ("2", 1)]
    seen[:] = [("", 0)]
    bench.finish(begin(bench, node("b", catch=Catch(capability="other"))))
    assert seen[1:] == [("", 1), ("catch", 1)]
