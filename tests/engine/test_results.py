"""Results, outputs and expressions: kept, bounded, and refused where they are none."""

from __future__ import annotations

from typing import Any

import pytest

from opscore.config import load_config
from tasks.claims import poll
from tasks.execution import Outcome
from tasks.graph import Graph, Node
from tasks.models import Payload, Task
from tasks.results import outputs_of, result_of
from tasks.retries import RetryPolicy
from tasks.submission import start_run, submit_task
from tests.engine.conftest import Bench, error_of

pytestmark = pytest.mark.django_db(transaction=True)


def node(**fields: Any) -> Node:
    return Node(**{"key": "job", "capability": "work", **fields})


@pytest.mark.parametrize("result", [object(), {1, 2}, float("nan"), "a\0b", "\ud800", {"k\0": 1}])
def test_result_that_is_not_json_fails_the_attempt_with_that_reason(
    bench: Bench, result: object
) -> None:
    bench.does("work", lambda context: result)
    task = submit_task(bench.project, node(retry=RetryPolicy(limit=3)))
    bench.step(task)
    task.refresh_from_db()
    assert (task.status, error_of(task)["type"]) == ("failed", "invalid_result")


def test_endless_result_fails_the_attempt(bench: Bench) -> None:
    loop: list[object] = []
    loop.append(loop)
    bench.does("work", lambda context: loop)
    task = submit_task(bench.project, node())
    bench.step(task)
    task.refresh_from_db()
    assert (task.status, error_of(task)["type"]) == ("failed", "invalid_result")


def test_large_result_is_kept_by_reference_and_readable_downstream(bench: Bench) -> None:
    text = "x" * (load_config().inline_result_bytes + 1)
    graph = Graph.of(
        [
            node(key="big"),
            node(
                key="next",
                needs=("big",),
                capability="other",
                inputs={"size": "${{ size(tasks.big.result) }}"},
            ),
        ]
    )
    bench.does("work", lambda context: text)
    bench.does("other", lambda context: context.inputs["size"])
    run = bench.finish(start_run(bench.project, graph, inputs={}))
    big = run.tasks.get(key="big")
    assert big.result is None
    assert big.result_ref is not None
    assert Payload.objects.get(id=big.result_ref).size == len(text) + 2
    assert result_of(big) == text
    assert run.tasks.get(key="next").result == len(text)


def test_result_above_the_limit_fails_the_attempt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_config(), "max_result_bytes", 100)
    bench.does("work", lambda context: "x" * 100)
    task = submit_task(bench.project, node())
    bench.step(task)
    task.refresh_from_db()
    assert error_of(task)["type"] == "result_too_large"


def test_expression_that_cannot_be_evaluated_fails_the_task(bench: Bench) -> None:
    task = start_run(
        bench.project, Graph.of([node(inputs={"x": "${{ inputs.missing.deeper }}"})]), inputs={}
    ).tasks.get()
    assert bench.step(task) is Outcome.FAILED
    task.refresh_from_db()
    assert error_of(task)["type"] == "expression"
    assert error_of(task)["retryable"] is False


def test_expression_that_cannot_be_evaluated_fails_for_a_poller_too(bench: Bench) -> None:
    start_run(
        bench.project, Graph.of([node(inputs={"x": "${{ inputs.missing.deeper }}"})]), inputs={}
    )
    assert poll(bench.session.id, 1) == []
    assert Task.objects.get().status == "failed"


def test_outputs_that_cannot_be_evaluated_fail_the_attempt(bench: Bench) -> None:
    graph = Graph.of([node(outputs={"x": "${{ result.missing }}"})])
    run = bench.finish(start_run(bench.project, graph, inputs={}))
    assert run.status == "failed"
    assert error_of(run)["message"].startswith("outputs:")


def test_result_of_a_task_is_kept(bench: Bench) -> None:
    task = submit_task(bench.project, node(inputs={"a": 1}))
    bench.does("work", lambda context: {"doubled": context.inputs["a"] * 2})
    assert bench.step(task) is Outcome.COMPLETED
    task.refresh_from_db()
    assert task.result == {"doubled": 2}


def test_expressions_see_inputs_and_upstream_results(bench: Bench) -> None:
    graph = Graph.of(
        [
            node(
                key="first",
                inputs={"n": "${{ inputs.n }}"},
                outputs={"twice": "${{ result.n * 2 }}"},
            ),
            node(
                key="second",
                needs=("first",),
                inputs={
                    "n": "${{ tasks.first.outputs.twice }}",
                    "raw": "${{ tasks.first.result.n }}",
                },
            ),
        ],
        outputs={"answer": "${{ tasks.second.result.n }}", "run": "${{ run.workflow }}"},
    )
    bench.does("work", lambda context: context.inputs)
    run = start_run(bench.project, graph, inputs={"n": 21}, workflow="sums")
    bench.finish(run)
    assert outputs_of(run) == {"answer": 42, "run": "sums"}
    assert run.status == "completed"
    assert run.task_count == 2


def test_limit_of_a_result_counts_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config().model_copy(update={"max_result_bytes": 100})
    monkeypatch.setattr("tasks.results.load_config", lambda: config)
    bench.does("work", lambda task: "é" * 90)
    task = submit_task(bench.project, node())
    assert bench.step(task) is Outcome.FAILED
    task.refresh_from_db()
    assert error_of(task)["message"] == "the result has 182 bytes, more than 100"
