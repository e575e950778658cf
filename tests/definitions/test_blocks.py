"""Blocks and `finally`: tasks that see only some of the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from opscore.errors import InvalidError
from tasks.flow import Concurrency
from workflows.definition import block_of, from_data, parse


def problems_of(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (path, message); a definition without problems has none."""
    try:
        from_data({"name": "x", **data})
    except InvalidError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


BLOCK = """\
name: outer
tasks:
  each:
    for_each: ${{ inputs.repos }}
    with: {repo: "${{ item }}"}
    tasks:
      list: {capability: ls, with: {repo: "${{ inputs.repo }}"}}
      file:
        needs: list
        for_each: ${{ tasks.list.result }}
        with: {path: "${{ item }}", at: "${{ index }}"}
        tasks:
          read: {capability: cat, concurrency: 2, with: {path: "${{ inputs.path }}"}}
    outputs:
      texts: ${{ tasks.file.result }}
outputs:
  all: ${{ tasks.each.result.map(r, r.texts) }}
"""


def test_a_block_is_a_definition_inside_its_task() -> None:
    read = parse(BLOCK)
    node = read.graph().vertices[0].node
    assert (node.uses, node.outputs) == ("block", None)
    assert node.flow.block is not None
    block = block_of(json.loads(json.dumps(node.flow.block)))
    assert block == read.tasks[0].block
    assert block.as_dict() == node.flow.block
    inner = block.graph()
    assert [vertex.node.key for vertex in inner.vertices] == ["list", "file", "the end"]
    read_flow = (
        block_of(dict(inner.vertices[1].node.flow.block or {})).graph().vertices[0].node.flow
    )
    assert read_flow.concurrency == Concurrency("outer.each.file.read", 2)
    assert from_data(read.as_dict()) == read
    assert [each.key for each in read.every_task()] == ["each", "list", "file", "read"]


def test_finally_comes_after_everything_else() -> None:
    tasks = {"a": {"capability": "c"}}
    last = {
        "tidy": {"capability": "t", "with": {"s": "${{ tasks.a.status }}"}},
        "tell": {"needs": "tidy", "capability": "t", "with": {"r": "${{ tasks.tidy.result }}"}},
    }
    read = from_data({"name": "x", "tasks": tasks, "finally": last})
    assert [node.key for node in read.epilogue()] == ["tidy", "tell"]
    assert [vertex.node.key for vertex in read.graph().vertices] == ["a", "tidy", "tell"]
    assert from_data(read.as_dict()) == read


@pytest.mark.parametrize(
    ("block", "place", "message"),
    [
        ({"tasks": {}}, ".tasks", "a block needs at least one task"),
        ({"tasks": []}, ".tasks", "must be a map"),
        ({"tasks": {"i": {}}}, ".tasks.i", "a task needs a `capability`"),
        ({"tasks": {"i": {"capability": "c"}}, "uses": "agent"}, ".uses", "is a block"),
        ({"tasks": {"i": {"capability": "c"}}, "capability": "c"}, ".capability", "for a block"),
        ({"tasks": {"i": {"capability": "c", "needs": "q"}}}, ".tasks.i.needs", "no task `q`"),
        (
            {"tasks": {"i": {"capability": "c", "needs": "other"}}},
            ".tasks.i.needs",
            "there is no task `other`",
        ),
        (
            {"tasks": {"i": {"capability": "c", "if": "tasks.other.result"}}},
            ".tasks.i.if",
            "there is no task `other`",
        ),
        (
            {"for_each": [1], "tasks": {"i": {"capability": "c", "if": "item == 1"}}},
            ".tasks.i.if",
            "a block gets it by its `with`",
        ),
        (
            {"with": {"a": 1}, "tasks": {"i": {"capability": "c", "if": "inputs.b == 1"}}},
            ".tasks.i.if",
            "there is no input `b`",
        ),
        (
            {"tasks": {"i": {"capability": "c"}}, "outputs": {"x": "${{ tasks.other.result }}"}},
            ".outputs.x",
            "there is no task `other`",
        ),
    ],
)
def test_a_block_sees_itself_alone(block: dict[str, Any], place: str, message: str) -> None:
    tasks = {"other": {"capability": "c"}, "b": {"needs": "other", **block}}
    ((path, told),) = problems_of({"tasks": tasks})
    assert path == f"tasks.b{place}"
    assert message in told


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"capability": "c"}
    for _ in range(levels):
        inner = {"tasks": {"t": inner}}
    return {"tasks": {"t": inner}}


def test_blocks_are_nested_eight_deep_at_most() -> None:
    assert problems_of(nested(8)) == []
    ((path, message),) = problems_of(nested(9))
    assert path == "tasks" + ".t.tasks" * 9
    assert message == "blocks are nested more than 8 deep"


def test_tasks_of_blocks_count() -> None:
    inner = {f"t{number}": {"capability": "c"} for number in range(5_000)}
    ((path, message),) = problems_of({"tasks": {"a": {"tasks": inner}, "b": {"tasks": inner}}})
    assert (path, message) == ("tasks.b.tasks", "10002 tasks; at most 10000 are allowed")


@pytest.mark.parametrize(
    ("last", "path", "message"),
    [
        ({"a": {"capability": "c"}}, "finally.a", "there is a task `a` in `tasks` already"),
        ({"z": {"capability": "c", "needs": "a"}}, "finally.z.needs", "all of `tasks` have ended"),
        ({"z": {"capability": "c", "needs": "y"}}, "finally.z.needs", "there is no task `y`"),
        ({"z": {}}, "finally.z", "needs a `capability`"),
        ([], "finally", "must be a map"),
    ],
)
def test_a_wrong_finally_is_told(last: Any, path: str, message: str) -> None:
    ((where, told),) = problems_of({"tasks": {"a": {"capability": "c"}}, "finally": last})
    assert where == path
    assert message in told


def test_the_tasks_do_not_see_finally_and_nothing_has_run_when_a_run_is_queued() -> None:
    tasks = {"a": {"capability": "c", "if": "tasks.z.result"}}
    data = {"tasks": tasks, "finally": {"z": {"capability": "c"}}}
    assert "there is no task `z`" in problems_of(data)[0][1]
    limit = {"key": "${{ tasks.a.result }}"}
    ((path, message),) = problems_of({"tasks": {"a": {"capability": "c"}}, "concurrency": limit})
    assert path == "concurrency.key"
    assert "nothing has run yet" in message
