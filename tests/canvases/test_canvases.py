"""Canvases as runs: what they return, how they fail, how they are retried."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from celery import Celery, chain, chord, group, shared_task
from django.db import transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.handlers import load
from agents.supervisor import preload
from opscore.errors import InvalidError, NotFoundError
from opscore.ids import uuid7
from tasks.expressions import render
from tasks.graph import END, Graph, Node
from tasks.models import Run
from tasks.reconcile import wake_retries
from tasks.results import outputs_of
from tasks.submission import start_run
from tests.canvases.conftest import Finish
from tests.canvases.shop import add, asks, counted, nothing, refuse, shaky, show, total
from tests.engine.conftest import Bench, error_of
from workflows.canvases import CanvasFailedError, adopt, canvas_result, durable, run_canvas
from workflows.signatures import graph_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("canvas", "result"),
    [
        (add.s(1, two=4), 5),
        (chain(add.s(1, 2), add.s(3), add.si(10, 20)), 30),
        (group(add.s(n, n) for n in range(12)), [2 * n for n in range(12)]),
        (chord([add.s(1, 1), add.s(2, 2)], total.s()), 6),
        (chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s(), add.s(5)), 12),
        (
            chord([chain(add.s(1, 1), add.s(1)), chord([add.s(2, 2)] * 2, total.s())], total.s()),
            11,
        ),
        (group(group(add.s(1), add.s(2)), add.s(3)), [2, 3, 4]),
        (chain(group(add.s(0), add.s(1)), group(show.s(1), show.si())), [[[[1, 2], 1], {}], [[], {}]]),
        (chain(nothing.s(), show.s()), [[None], {}]),
        (show.s("${{ inputs }}", deep=["${{ tasks.x }}"]), [["${{ inputs }}"], {"deep": ["${{ tasks.x }}"]}]),
    ],
)  # fmt: skip
def test_canvas_returns_what_celery_would(finish: Finish, canvas: Any, result: Any) -> None:
    run = finish(canvas)
    assert run.status == "completed", run.error
    assert canvas_result(run) == result
    assert outputs_of(run) == {"result": result}


_trees = st.recursive(
    st.integers(0, 9).map(add.s),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda tasks: chain(*tasks)),
        st.lists(inner, min_size=2, max_size=3).map(lambda tasks: chord(tasks, total.s())),
    ),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(canvas=_trees)
def test_random_canvases_compute_what_celery_computes(canvas: Any) -> None:
    functions: dict[str, Any] = {"shop.add": add.run, "shop.total": total.run}
    results: dict[str, Any] = {}
    answer = None
    for vertex in graph_of(canvas, known=functions).vertices:
        scope = {"tasks": {key: {"result": value} for key, value in results.items()}}
        inputs = render(vertex.node.inputs, scope)
        if vertex.node.key == END:
            answer = inputs["result"]
        else:
            function = functions[vertex.node.capability]
            results[vertex.node.key] = function(*inputs["args"], **inputs["kwargs"])
    assert answer == canvas.apply().get()


def test_steps_are_tasks_of_the_run(finish: Finish) -> None:
    run = finish(chain(add.s(1, 2), group(add.s(3), add.s(4))))
    assert (run.workflow, run.task_count) == ("canvas", 3)
    shown = run.tasks.exclude(uses="end").values_list("key", "capability")
    assert dict(shown) == dict.fromkeys(["add-1", "add-2", "add-3"], "shop.add")


def test_failure_says_which_task_and_why(finish: Finish) -> None:
    run = finish(chain(add.s(1, 1), refuse.s(), add.s(1)))
    assert run.status == "failed"
    with pytest.raises(CanvasFailedError, match=r"failed in refuse-2. LookupError: out of stock"):
        canvas_result(run.id)
    task = run.tasks.get(key="refuse-2")
    assert task.attempt == 1
    assert 'raise LookupError("out of stock")' in error_of(task)["traceback"]


def test_autoretry_is_honoured_with_one_id_for_all_attempts(bench: Bench, finish: Finish) -> None:
    run = finish(shaky.s(2))
    for _ in range(2):
        assert wake_retries() is False
        bench.finish(run)
    task = run.tasks.get(key="shaky-1")
    assert canvas_result(run) == [2, str(task.id)]
    assert task.attempts.count() == 2


def test_autoretry_ends_at_its_limit(bench: Bench, finish: Finish) -> None:
    run = finish(shaky.s(9))
    for _ in range(5):
        wake_retries()
        bench.finish(run)
    assert run.tasks.get(key="shaky-1").attempts.count() == 3
    assert error_of(run)["type"] == "ConnectionError"


def test_error_that_is_not_named_for_retry_is_final(finish: Finish) -> None:
    run = finish(shaky.s(1, error="KeyError"))
    assert error_of(run)["type"] == "KeyError"


def test_task_may_ask_for_its_retry(bench: Bench, finish: Finish) -> None:
    run = finish(asks.s(1))
    wake_retries()
    bench.finish(run)
    assert canvas_result(run) == 1


def test_base_class_of_the_task_is_honoured(finish: Finish) -> None:
    assert canvas_result(finish(counted.s(3))) == ["around", 3]


def test_result_that_is_no_json_fails_the_task(bench: Bench, finish: Finish) -> None:
    @durable
    @shared_task(name="shop.odd")
    def odd() -> Any:
        return {1, 2}

    bench.handlers.update(load([]))
    assert error_of(finish(odd.s()))["type"] == "invalid_result"


def test_waiting_has_an_end(bench: Bench) -> None:
    run = run_canvas(add.s(1), name="patience", project=bench.project)
    with pytest.raises(TimeoutError, match="patience"):
        canvas_result(run, timeout_s=0.05)
    with pytest.raises(NotFoundError):
        canvas_result(uuid7())


def test_rollback_leaves_no_trace(bench: Bench) -> None:
    with transaction.atomic():
        run_canvas(add.s(1))
        transaction.set_rollback(True)
    assert not Run.objects.exists()


def test_unknown_task_project_and_name_are_refused(bench: Bench) -> None:
    with pytest.raises(InvalidError) as refused:
        run_canvas({"task": "shop.totl"})
    assert "did you mean `shop.total`?" in refused.value.problems[0].message
    with pytest.raises(NotFoundError, match="no project nowhere"):
        run_canvas(add.s(1), project="nowhere")
    for name in ("", "x" * 101, "two\nlines"):
        with pytest.raises(InvalidError, match="name of a canvas"):
            run_canvas(add.s(1), name=name)


def test_task_that_only_agents_know_is_accepted(bench: Bench) -> None:
    assert run_canvas({"task": "work", "args": [1]}).task_count == 1


def test_durable_task_serves_workflows_too(bench: Bench, finish: Finish) -> None:
    graph = Graph.of([Node(key="a", capability="shop.add", inputs={"one": 1, "two": 2})])
    run = bench.finish(start_run(bench.project, graph, inputs={}))
    assert run.tasks.get().result == 3
    wrong = Graph.of([Node(key="a", capability="shop.add", inputs={"args": 1})])
    run = bench.finish(start_run(bench.project, wrong, inputs={}))
    assert error_of(run)["type"] == "invalid_inputs"


def test_agents_find_the_tasks_of_their_module() -> None:
    assert "shop.add" in preload.chosen("tests.canvases.shop", ["shop.add"])
    assert "shop.shaky" in preload.chosen("tests.canvases.shop", ["shop.shaky"])


def test_module_is_adopted_as_it_is() -> None:
    own = Celery("own", set_as_current=False, broker="memory://")
    module = ModuleType("old_shop")
    sys.modules["old_shop"] = module

    @own.task(name="old.double")
    def double(number: int) -> int:
        return number * 2

    with pytest.raises(ValueError, match="holds no Celery task"):
        adopt("old_shop")
    vars(module).update(double=double, other=3, app=own)
    adopt("old_shop")
    assert "old.double" in load([])
    assert double(4) == 8


def test_durable_on_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="stands above"):
        durable(len)
