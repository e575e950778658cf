"""What a canvas means: order, arguments, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from celery import chain, chord, group

from opscore.errors import InvalidError, TooLargeError
from tasks.graph import END, Graph
from tests.canvases.shop import add, nothing, show, total
from workflows import celery_tasks, signatures
from workflows.signatures import graph_of

KNOWN = {"shop.add", "shop.total", "shop.show", "shop.nothing"}


def compiled(canvas: Any) -> Graph:
    return graph_of(canvas, known=KNOWN, traits=celery_tasks.traits)


def needs(graph: Graph) -> dict[str, tuple[str, ...]]:
    return {v.node.key: v.node.needs for v in graph.vertices if v.node.key != END}


def args(graph: Graph) -> dict[str, Any]:
    return {v.node.key: v.node.inputs["args"] for v in graph.vertices if v.node.key != END}


def result(key: str) -> str:
    return f'${{{{ tasks["{key}"].result }}}}'


def problems(canvas: Any) -> dict[str, str]:
    with pytest.raises(InvalidError) as refused:
        compiled(canvas)
    return {problem.path: problem.message for problem in refused.value.problems}


def test_one_task_is_a_run_of_one() -> None:
    graph = compiled(add.s(1, two=2))
    assert needs(graph) == {"add-1": ()}
    assert graph.vertices[0].node.inputs == {"args": [1], "kwargs": {"two": 2}}
    assert graph.vertices[-1].node.inputs == {"result": result("add-1")}


def test_chain_passes_each_result_on_unless_immutable() -> None:
    graph = compiled(chain(add.s(1, 2), add.s(3), add.si(4, 5)))
    assert needs(graph) == {"add-1": (), "add-2": ("add-1",), "add-3": ("add-2",)}
    assert args(graph) == {"add-1": [1, 2], "add-2": [result("add-1"), 3], "add-3": [4, 5]}


def test_group_then_task_is_a_chord_with_the_list_in_order() -> None:
    graph = compiled(chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s(), add.s(5)))
    assert needs(graph)["total-4"] == ("add-2", "add-3")
    assert args(graph)["total-4"] == [[result("add-2"), result("add-3")]]
    assert args(graph)["add-3"] == [result("add-1"), 2]
    assert needs(graph)["add-5"] == ("total-4",)


def test_chord_of_chains_and_chord_inside_chord() -> None:
    inner = chord([add.s(1, 1), add.s(2, 2)], total.s())
    graph = compiled(chord([chain(add.s(9, 9), add.s(1)), inner], total.s()))
    assert args(graph)["total-6"] == [[result("add-2"), result("total-5")]]
    assert needs(graph)["total-5"] == ("add-3", "add-4")


def test_two_groups_in_a_row_are_joined_one_by_one() -> None:
    pair = group(add.si(1, 1), add.si(2, 2))
    graph = compiled(chain(pair, group(show.s(), show.s()), group(show.s(), show.s())))
    assert len(needs(graph)) == 6
    assert needs(graph)["show-5"] == ("show-3", "show-4")
    assert graph.vertices[-1].node.inputs == {"result": [result("show-5"), result("show-6")]}


def test_group_in_a_group_is_one_group_and_a_chain_in_a_group_is_one_value() -> None:
    flat = compiled(group(group(add.s(1), add.s(2)), add.s(3)))
    assert flat.vertices[-1].node.inputs["result"] == [result(f"add-{n}") for n in (1, 2, 3)]
    deep = compiled(group(chain(add.s(1), group(add.s(2), add.s(3))), add.s(4)))
    assert deep.vertices[-1].node.inputs["result"] == [
        [result("add-2"), result("add-3")],
        result("add-4"),
    ]


def test_empty_groups_do_what_celery_does() -> None:
    assert args(compiled(chord([], total.s())))["total-1"] == [[]]
    around = compiled(signature_of("chain", [add.s(1, 1), group([]), add.s(2)]))
    assert args(around)["add-2"] == [result("add-1"), 2]


def signature_of(kind: str, tasks: list[Any]) -> dict[str, Any]:
    return {"task": f"celery.{kind}", "args": [], "kwargs": {"tasks": tasks}, "options": {}}


def test_canvas_that_went_through_json_means_the_same() -> None:
    canvas = chain(add.s(1, 2), group(add.s(3), add.s(4)), total.s())
    assert compiled(json.loads(json.dumps(canvas))) == compiled(canvas)


def test_partial_arguments_go_to_the_first_tasks() -> None:
    graph = compiled({**chain(add.s(1), add.s(2)), "args": (7,)})
    assert args(graph) == {"add-1": [7, 1], "add-2": [result("add-1"), 2]}


def test_expressions_in_arguments_are_text() -> None:
    text = "${{ tasks.secret.result }} $${{"
    (vertex, _) = compiled(show.s(text, deep={"x": [text]})).vertices
    assert vertex.reads == ()
    assert vertex.node.inputs["args"] == ["$${{ tasks.secret.result }} $$${{"]


def test_priority_and_time_limit_are_kept() -> None:
    node = compiled({**add.s(1), "options": {"priority": 9, "time_limit": 3}}).vertices[0].node
    assert (node.priority, node.timeout_s) == (9, 3.0)


def test_long_chain_with_many_groups_is_no_deep_recursion() -> None:
    canvas: Any = add.s(0, 0)
    for _ in range(25):
        canvas = canvas | group(add.s(1), add.s(2)) | total.s()
    assert len(needs(compiled(canvas))) == 1 + 25 * 3


def test_frozen_canvas_is_accepted() -> None:
    canvas = add.s(1)
    canvas.freeze()
    assert len(needs(compiled(canvas))) == 1


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ({"link": add.s(1)}, "chain(task, callback)"),
        ({"link_error": [add.s(1)]}, "the run's error"),
        ({"countdown": 3}, "countdown"),
        ({"eta": "2026-01-01"}, "eta"),
        ({"queue": "fast"}, "capability"),
        ({"shadow": "x"}, "priority and time_limit"),
        ({"priority": 10}, "priority cannot be 10"),
        ({"time_limit": -1}, "time_limit cannot be -1"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(option: dict[str, Any], hint: str) -> None:
    found = problems(chain(add.s(1, 1), add.s(2).set(**option)))
    assert list(found) == ["canvas.tasks[1]"]
    assert hint in found["canvas.tasks[1]"]


def test_callbacks_of_a_whole_chain_are_refused() -> None:
    canvas = chain(add.s(1), add.s(2))
    canvas.link(add.s(3))
    assert "link" in problems(canvas)["canvas"]


def test_every_problem_is_named_with_its_path() -> None:
    strange: Any = signature_of("group", [{"task": "shop.ad", "args": [datetime.now(UTC)]}, 7])
    canvas = chain(group(add.s({1, 2}), add.s(float("nan"))), strange)
    found = problems(canvas)
    assert found["canvas.header.tasks[0].args[0]"].startswith("a set is no JSON")
    assert "infinite" in found["canvas.header.tasks[1].args[0]"]
    assert "did you mean `shop.add`?" in found["canvas.body.tasks[0]"]
    assert "a datetime is no JSON" in found["canvas.body.tasks[0].args[0]"]
    assert "signature is expected, not 7" in found["canvas.body.tasks[1]"]


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("x" * 1_000_000, "pass the name of the data"),
        ("\0", "NUL"),
        ("\ud800", "surrogate"),
        (1 << 2000, "bits"),
        ({1: 2}, "the key 1"),
        (b"bytes", "a bytes is no JSON"),
    ],
    ids=["million", "nul", "surrogate", "integer", "key", "bytes"],
)
def test_arguments_that_cannot_be_kept_are_refused(value: Any, hint: str) -> None:
    assert hint in " ".join(problems(show.s(value)).values())


def test_nesting_without_end_is_refused() -> None:
    value: Any = []
    for _ in range(5000):
        value = [value]
    assert "deep" in " ".join(problems(show.s(value)).values())
    canvas: Any = signature_of("chain", [add.s(1)])
    for _ in range(5000):
        canvas = signature_of("group", [signature_of("chain", [canvas, nothing.s()])])
    assert "deep" in " ".join(problems(canvas).values())
    for _ in range(5000):
        canvas = signature_of("group", [canvas])
    assert "deep" in " ".join(problems(canvas).values())


def test_too_many_tasks_are_refused_even_without_end() -> None:
    endless = signature_of("group", [])
    endless["kwargs"]["tasks"] = (add.s(n) for n in count())
    with pytest.raises(TooLargeError, match="10000 tasks"):
        compiled(endless)


def test_wide_groups_against_each_other_are_refused_in_a_sentence() -> None:
    wide = group(show.si(n) for n in range(1500))
    with pytest.raises(TooLargeError, match="between two wide groups"):
        compiled(wide | group(show.s(n) for n in range(1500)))


@pytest.mark.parametrize("canvas", [None, 7, [], {}, {"task": 3}, group([]), chain()])
def test_what_is_no_canvas_is_refused(canvas: Any) -> None:
    assert set(problems(canvas)) == {"canvas"}


@pytest.mark.parametrize("canvas", [add.map([1]), add.starmap([[1]]), add.chunks([[1]], 1)])
def test_batches_of_celery_are_refused_with_what_to_write(canvas: Any) -> None:
    assert "write group(" in problems(canvas)["canvas"]


def test_name_that_is_no_capability_is_refused() -> None:
    assert "80 characters" in problems({"task": "x" * 81})["canvas"]
    assert signatures.MAX_TASKS == 10_000
