"""Runs inside runs: sub-workflows and blocks, linked both ways."""

from __future__ import annotations

from typing import Any

import pytest

from agents.handlers import Context, HandlerError
from opscore.models import Project
from tasks import control, reconcile
from tasks.models import Run, Task
from tasks.results import outputs_of
from tests.engine.conftest import Bench, error_of
from workflows import registry
from workflows.definition import parse

pytestmark = pytest.mark.django_db(transaction=True)

CHILD = """
name: child
inputs: {type: object, required: [n], properties: {n: {type: integer}}}
tasks:
  work: {capability: work, with: {n: "${{ inputs.n }}"}}
outputs: {doubled: "${{ tasks.work.result }}"}
"""
PARENT = """
name: parent
tasks:
  sub:
    uses: workflow:child
    with: {n: 21}
  after:
    needs: sub
    capability: work
    with: {n: "${{ tasks.sub.result.doubled }}"}
outputs: {n: "${{ tasks.after.result }}"}
"""
NESTED = """
name: nested
tasks:
  rows:
    for_each: ${{ inputs.rows }}
    max_parallel: 2
    with: {row: "${{ item }}"}
    tasks:
      cells:
        for_each: ${{ inputs.row }}
        capability: work
        with: {n: "${{ item }}"}
      total:
        needs: cells
        capability: work
        with: {n: "${{ size(tasks.cells.result) }}"}
    outputs: {cells: "${{ tasks.cells.result }}", total: "${{ tasks.total.result }}"}
outputs: {all: "${{ tasks.rows.result }}"}
"""


def start(project: Project, text: str, **inputs: Any) -> Run:
    definition = parse(text)
    registry.upload(project, definition)
    return registry.execute(project, definition.name, inputs=inputs)


def finish_all(bench: Bench) -> None:
    """Execute whatever is queued in any run until nothing is."""
    while task := Task.objects.filter(status="queued").order_by("id").first():
        bench.step(task)


@pytest.fixture
def doubling(bench: Bench) -> Bench:
    bench.does("work", lambda context: context.inputs["n"] * 2)
    registry.upload(bench.project, parse(CHILD))
    return bench


def test_sub_workflow_is_a_run_of_its_own_linked_both_ways(doubling: Bench) -> None:
    run = start(doubling.project, PARENT)
    child = Run.objects.get(workflow="child")
    sub = run.tasks.get(key="sub")
    assert (child.parent_task_id, child.depth, sub.names["run"]) == (sub.id, 1, str(child.id))
    assert sub.status == "waiting"
    finish_all(doubling)
    run.refresh_from_db()
    assert (run.status, outputs_of(run)) == ("completed", {"n": 84})


def test_failed_sub_workflow_fails_its_task_with_its_reason(bench: Bench) -> None:
    def refuse(context: Context) -> None:
        raise HandlerError("no luck", type="unlucky")

    bench.does("work", refuse)
    registry.upload(bench.project, parse(CHILD))
    run = start(bench.project, PARENT)
    finish_all(bench)
    run.refresh_from_db()
    assert (run.status, error_of(run)["type"], error_of(run)["task"]) == (
        "failed",
        "unlucky",
        "sub",
    )
    assert "task work: no luck" in error_of(run)["message"]


def test_retry_of_a_sub_workflow_starts_a_new_run(bench: Bench) -> None:
    left = [1]

    def flaky(context: Context) -> Any:
        if left and left.pop():
            raise HandlerError("once")
        return context.inputs["n"]

    bench.does("work", flaky)
    registry.upload(bench.project, parse(CHILD))
    text = PARENT.replace("with: {n: 21}", "with: {n: 21}\n    retry: {limit: 1, initial: 1ms}")
    run = start(bench.project, text)
    finish_all(bench)
    Task.objects.filter(status="retrying").update(wake_at="2020-01-01T00:00:00Z")
    reconcile.reconcile()
    finish_all(bench)
    run.refresh_from_db()
    assert run.status == "completed"
    assert sorted(Run.objects.filter(workflow="child").values_list("status", flat=True)) == [
        "completed",
        "failed",
    ]


def test_unknown_sub_workflow_and_wrong_inputs_fail_the_task(doubling: Bench) -> None:
    run = start(doubling.project, PARENT.replace("workflow:child", "workflow:childe"))
    run.refresh_from_db()
    assert "child" in error_of(run)["message"]
    run = start(doubling.project, PARENT.replace("21", '"x"'))
    run.refresh_from_db()
    assert error_of(run)["type"] == "sub_workflow"


def test_cancel_and_pause_go_down(doubling: Bench) -> None:
    run = start(doubling.project, PARENT)
    child = Run.objects.get(workflow="child")
    control.pause_run(run.id)
    child.refresh_from_db()
    assert child.status == "paused"
    control.resume_run(run.id)
    child.refresh_from_db()
    assert child.status == "running"
    control.cancel_run(run.id)
    child.refresh_from_db()
    assert (child.status, child.tasks.get(key="work").status) == ("cancelled", "cancelled")


def test_end_of_a_sub_run_whose_news_got_lost(
    doubling: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(doubling.project, PARENT)
    with monkeypatch.context() as patched:
        patched.setattr("tasks.subruns.report", lambda run_id: None)
        finish_all(doubling)
    assert run.tasks.get(key="sub").status == "waiting"
    reconcile.reconcile()
    finish_all(doubling)
    run.refresh_from_db()
    assert run.status == "completed"


def test_runs_inside_each_other_have_an_end(bench: Bench) -> None:
    run = start(bench.project, "name: me\ntasks: {again: {uses: 'workflow:me'}}")
    run.refresh_from_db()
    assert run.status == "failed"
    assert "more than 16 runs" in error_of(run)["message"]
    assert Run.objects.count() == 17


def test_blocks_nest_for_each(doubling: Bench) -> None:
    run = start(doubling.project, NESTED, rows=[[1, 2], [], [3]])
    finish_all(doubling)
    run.refresh_from_db()
    assert run.status == "completed", run.error
    assert outputs_of(run) == {
        "all": [
            {"cells": [2, 4], "total": 4},
            {"cells": [], "total": 0},
            {"cells": [6], "total": 2},
        ]
    }


def test_loop_around_a_block(doubling: Bench) -> None:
    text = """
name: loop
tasks:
  grow:
    repeat: {until: "result.n > 10", max: 9}
    with: {n: "${{ previous == null ? 1 : previous.n }}"}
    tasks: {step: {capability: work, with: {n: "${{ inputs.n }}"}}}
    outputs: {n: "${{ tasks.step.result }}"}
outputs: {n: "${{ tasks.grow.result.n }}"}
"""
    run = start(doubling.project, text)
    finish_all(doubling)
    run.refresh_from_db()
    assert (run.status, outputs_of(run)) == ("completed", {"n": 16})
