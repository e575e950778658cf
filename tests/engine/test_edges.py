"""Rare ends of the verbs: what is not there, too large, or not what was expected."""

from __future__ import annotations

from typing import Any

import pytest

from opscore.config import load_config
from opscore.errors import ConflictError, InvalidError, NotFoundError
from opscore.ids import uuid7
from opscore.models import Project
from tasks import control, epilogue, inbox, reconcile, reruns, subruns
from tasks.flow import Catch, Concurrency, Repeat
from tasks.models import Run, Task
from tasks.reports import complete
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
