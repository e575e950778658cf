"""Cancelled runs and tasks, in any state."""

from __future__ import annotations

from typing import Any

import pytest

from agents.handlers import Context, HandlerError
from opscore.errors import ConflictError, NotFoundError
from opscore.ids import uuid7
from opscore.models import Event
from tasks import reconcile
from tasks.claims import claim
from tasks.control import cancel_run, cancel_task
from tasks.graph import Node
from tasks.models import Attempt, Run
from tasks.reports import complete
from tasks.retries import RetryPolicy
from tasks.submission import start_run, submit_task
from tests.engine.conftest import Bench, error_of, status_of
from tests.engine.dags import chain

pytestmark = pytest.mark.django_db(transaction=True)


def node(**fields: Any) -> Node:
    return Node(**{"key": "job", "capability": "work", **fields})


def boom(task: Context) -> None:
    raise HandlerError("no luck", type="unlucky")


def test_cancelled_run_runs_nothing_more(bench: Bench) -> None:
    run = start_run(bench.project, chain(3), inputs={})
    held = claim(run.tasks.get(number=0).id, 1, bench.session.id)
    assert held is not None
    cancel_run(run.id, actor="alice")
    run.refresh_from_db()
    assert run.status == "cancelled"
    assert set(run.tasks.values_list("status", flat=True)) == {"cancelled"}
    with pytest.raises(ConflictError):
        complete(held.id, held.fence, 1)
    with pytest.raises(ConflictError, match="cancelled already"):
        cancel_run(run.id)
    assert Event.objects.get(run_id=run.id, kind="run.cancelled").actor == "alice"
    assert Attempt.objects.get(task_id=held.id).outcome == "cancelled"


def test_cancel_that_was_cut_short_is_finished_by_the_reconciler(bench: Bench) -> None:
    run = start_run(bench.project, chain(3), inputs={})
    Run.objects.filter(id=run.id).update(status="cancelling")
    assert claim(run.tasks.get(number=0).id, 1, bench.session.id) is None
    reconcile.reconcile()
    run.refresh_from_db()
    assert run.status == "cancelled"


@pytest.mark.parametrize("state", ["queued", "running", "retrying"])
def test_task_can_be_cancelled_in_any_live_state(bench: Bench, state: str) -> None:
    bench.does("work", boom)
    task = submit_task(bench.project, node(retry=RetryPolicy(limit=1, initial_s=100)))
    if state == "running":
        claim(task.id, 1, bench.session.id)
    if state == "retrying":
        while status_of(task.id) != "retrying":
            bench.step(task)
    assert status_of(task.id) == state
    cancel_task(task.id, actor="bob")
    assert status_of(task.id) == "cancelled"
    run = Run.objects.get(id=task.run_id)
    assert (run.status, error_of(run)["message"]) == ("cancelled", "The task was cancelled by bob.")
    with pytest.raises(ConflictError, match="cancelled already"):
        cancel_task(task.id)


def test_cancelled_task_skips_what_depends_on_it(bench: Bench) -> None:
    run = start_run(bench.project, chain(3), inputs={})
    cancel_task(run.tasks.get(number=1).id)
    bench.finish(run)
    assert list(run.tasks.order_by("number").values_list("status", flat=True)) == [
        "completed",
        "cancelled",
        "skipped",
    ]
    assert run.status == "cancelled"


def test_cancel_of_the_unknown_is_not_found(db: None) -> None:
    for cancel in (cancel_run, cancel_task):
        with pytest.raises(NotFoundError):
            cancel(uuid7())
