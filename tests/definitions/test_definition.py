"""Definitions: one model for YAML and JSON, and every problem at once."""

from __future__ import annotations

import graphlib
import json
import sys
import time
from contextlib import suppress
from itertools import pairwise
from typing import Any, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.documents import read
from opscore.errors import InvalidError, Problem, TooLargeError
from tasks.retries import RetryPolicy
from workflows.ancestry import cycles
from workflows.definition import Definition, TaskSpec, from_data, json_schema, parse

GOOD = """\
name: review
version: "1.2"
description: Finds hot spots.
priority: 7
inputs:
  type: object
  required: [repo]
  properties:
    repo: {type: string}
    depth: {type: integer, default: 3, minimum: 1}
tasks:
  scan:
    capability: git_history
    with: {repo: "${{ inputs.repo }}", depth: "${{ inputs.depth }}"}
    retry: 3
    timeout: 90s
    outputs: {files: "${{ result.files }}"}
  review:
    needs: scan
    capability: code_review
    requires: [gpu, linux]
    with: {files: "${{ tasks.scan.outputs.files }}"}
    retry: {limit: 5, initial: 500ms, factor: 3, max: 2m}
    timeout: 1h30m
    priority: 9
  report:
    needs: [scan, review]
    capability: write
    description: The end.
    timeout: 12
    with: {all: "${{ tasks.review.result }}"}
outputs:
  report: ${{ tasks.report.result }}
"""


def problems_of(text: str | bytes, media_type: Literal["yaml", "json"] = "yaml") -> list[Problem]:
    with pytest.raises(InvalidError) as caught:
        parse(text, media_type=media_type)
    return list(caught.value.problems)


def test_a_definition_says_all_of_this() -> None:
    definition = parse(GOOD)
    assert (definition.name, definition.version, definition.priority) == ("review", "1.2", 7)
    scan, review, report = definition.tasks
    assert scan == TaskSpec(
        "scan",
        "git_history",
        inputs={"repo": "${{ inputs.repo }}", "depth": "${{ inputs.depth }}"},
        retry=RetryPolicy(limit=3),
        timeout_s=90,
        outputs={"files": "${{ result.files }}"},
    )
    assert review.needs == ("scan",)
    assert review.requires == ("gpu", "linux")
    assert review.retry == RetryPolicy(limit=5, initial_s=0.5, factor=3, max_s=120)
    assert (review.timeout_s, review.priority) == (5400, 9)
    assert (report.needs, report.timeout_s) == (("scan", "review"), 12)


def test_yaml_and_json_are_one_model() -> None:
    data = read(GOOD).data
    assert parse(json.dumps(data), media_type="json") == parse(GOOD)
    assert from_data(data) == parse(GOOD)


def test_the_graph_has_the_tasks_in_order_and_the_outputs_at_its_end() -> None:
    graph = parse(GOOD).graph()
    nodes = [vertex.node for vertex in graph.vertices]
    assert [node.key for node in nodes[:3]] == ["scan", "review", "report"]
    assert nodes[1].capability == "code_review"
    assert nodes[1].requires == ("gpu", "linux")
    assert nodes[1].timeout_s == 5400
    assert graph.vertices[1].reads == (0,)
    assert nodes[3].inputs == {"report": "${{ tasks.report.result }}"}
    assert nodes[3].uses == "end"


BAD = """\
name: demo
versin: 3
tasks:
  a:
    capabilty: x
    needs: [c, zz]
  b:
    capability: y
    needs: a
    with: {x: "${{ tasks.c.result + }}", y: "${{ tasks.q.result }}"}
    retry: {limt: 3, initial: 2parsec}
  c:
    capability: z
    needs: [b]
  c:
    capability: q
"""
ALL_OF_BAD = [
    ("versin", 2, "unknown key `versin`; did you mean `version`?"),
    ("tasks.a", 4, "a task needs a `capability`"),
    ("tasks.a.capabilty", 5, "unknown key `capabilty`; did you mean `capability`?"),
    ("tasks.a.needs[1]", 6, "there is no task `zz`"),
    ("tasks.b.with.x", 10, "ends too early (character 17 of `tasks.c.result +`)"),
    ("tasks.b.with.y", 10, "there is no task `q` (character 1 of `tasks.q.result`)"),
    ("tasks.b.retry.limt", 11, "unknown key `limt`; did you mean `limit`?"),
    ("tasks.b.retry.initial", 11, "'2parsec' is not a duration"),
    ("tasks.c", 15, "`c` stands twice, first in line 12"),
]


def test_all_problems_are_told_at_once_with_path_and_line() -> None:
    told = problems_of(BAD)
    cycle = [problem for problem in told if "wait for each other" in problem.message]
    rest = [problem for problem in told if problem not in cycle]
    assert [(problem.path, problem.line) for problem in rest] == [each[:2] for each in ALL_OF_BAD]
    for problem, (_, _, message) in zip(rest, ALL_OF_BAD, strict=True):
        assert message in problem.message
    # The second `c` was skipped, so the first one's need closes the cycle.
    assert len(cycle) == 1


def test_the_error_counts_its_problems() -> None:
    with pytest.raises(InvalidError, match="The definition has 10 problems"):
        parse(BAD)


def one_task(**entry: Any) -> dict[str, Any]:
    return {"name": "x", "tasks": {"t": {"capability": "c", **entry}}}


def with_top(**entry: Any) -> dict[str, Any]:
    return {**one_task(), **entry}


@pytest.mark.parametrize(
    ("data", "path", "message"),
    [
        (with_top(taskz={}), "taskz", "unknown key `taskz`; did you mean `tasks`?"),
        ({"tasks": {"t": {"capability": "c"}}}, "", "a workflow needs a `name`"),
        ({"name": "x"}, "tasks", "at least one task"),
        ({"name": "x", "tasks": {}}, "tasks", "at least one task"),
        ({"name": "x", "tasks": []}, "tasks", "must be a map, not a list"),
        (with_top(name="a b"), "name", "a name has letters"),
        (with_top(name=5), "name", "must be text, not a number"),
        (with_top(name="0" * 32), "name", "must not look like an id"),
        (with_top(version="a b"), "version", "a version has"),
        (with_top(version=True), "version", "must be text, not true or false"),
        (with_top(priority=10), "priority", "from 0 to 9"),
        (with_top(priority=True), "priority", "from 0 to 9"),
        (with_top(inputs=[]), "inputs", "must be a map"),
        (with_top(outputs={"x": "${{ tasks.q.result }}"}), "outputs.x", "no task `q`"),
        ({"name": "x", "tasks": {"t": "hello"}}, "tasks.t", "a task is a map"),
        ({"name": "x", "tasks": {"a b": {"capability": "c"}}}, 'tasks["a b"]', "is not valid"),
        ({"name": "x", "tasks": {"t": {}}}, "tasks.t", "needs a `capability`"),
        (one_task(capability=None), "tasks.t", "needs a `capability`"),
        (one_task(capability="a b"), "tasks.t.capability", "one word"),
        (one_task(needs=["q"]), "tasks.t.needs[0]", "there is no task `q`"),
        (one_task(needs="q"), "tasks.t.needs", "there is no task `q`"),
        (one_task(needs="t"), "tasks.t.needs", "cannot wait for itself"),
        (one_task(needs=[1]), "tasks.t.needs[0]", "must be text"),
        (one_task(needs=3), "tasks.t.needs", "must be text"),
        (one_task(requires=["ok", "a b"]), "tasks.t.requires[1]", "one word"),
        (one_task(requires="a b"), "tasks.t.requires", "one word"),
        (one_task(**{"with": []}), "tasks.t.with", "must be a map"),
        (one_task(**{"with": {"a": ["${{ 1 + }}"]}}), "tasks.t.with.a[0]", "ends too early"),
        (one_task(retry=-1), "tasks.t.retry", "from 0 to 1000"),
        (one_task(retry="3"), "tasks.t.retry", "from 0 to 1000"),
        (one_task(retry={"factor": 0.5}), "tasks.t.retry.factor", "from 1 to 100"),
        (one_task(retry={"factor": "2"}), "tasks.t.retry.factor", "must be a number"),
        (one_task(retry={"max": 0}), "tasks.t.retry.max", "above zero"),
        (one_task(timeout="soon"), "tasks.t.timeout", "write it as 90s"),
        (one_task(timeout=""), "tasks.t.timeout", "write it as 90s"),
        (one_task(timeout=True), "tasks.t.timeout", "write it as 90s"),
        (one_task(timeout=0), "tasks.t.timeout", "above zero"),
        (one_task(timeout="400d"), "tasks.t.timeout", "366 days"),
        (one_task(timeout=10**90), "tasks.t.timeout", "366 days"),
        (one_task(priority="high"), "tasks.t.priority", "from 0 to 9"),
        (one_task(outputs=["x"]), "tasks.t.outputs", "must be a map"),
        (one_task(outputs={"x": "${{ tasks.t.result }}"}), "tasks.t.outputs.x", "not come before"),
        (one_task(description=3), "tasks.t.description", "must be text"),
    ],
)
def test_a_wrong_entry_is_named_by_its_path(data: Any, path: str, message: str) -> None:
    for text, media_type in ((json.dumps(data), "json"), (json.dumps(data, indent=1), "yaml")):
        (problem,) = problems_of(text, media_type)  # type: ignore[arg-type]  # one of two words
        assert problem.path == path
        assert message in problem.message
        assert problem.line is not None
    with pytest.raises(InvalidError) as caught:
        from_data(data)
    assert caught.value.problems[0].line is None


@pytest.mark.parametrize(
    ("needs", "cycles"),
    [
        ({"a": ["b"], "b": ["a"]}, 1),
        ({"a": ["c"], "b": ["a"], "c": ["b"], "d": ["a"]}, 1),
        ({"a": ["b"], "b": ["a"], "c": ["d"], "d": ["c"]}, 2),
    ],
)
def test_a_cycle_is_named_in_the_order_of_its_tasks(
    needs: dict[str, list[str]], cycles: int
) -> None:
    tasks = {key: {"capability": "c", "needs": above} for key, above in needs.items()}
    told = problems_of(json.dumps({"name": "x", "tasks": tasks}, indent=1))
    assert len(told) == cycles
    for problem in told:
        names = problem.message.partition(": ")[2].split(" -> ")
        assert names[0] == names[-1]
        assert all(first in needs[second] for first, second in pairwise(names))
        assert problem.path == f"tasks.{names[0]}.needs"


KEYS = st.integers(0, 7).map(str)


@given(st.dictionaries(KEYS, st.lists(KEYS, max_size=3), max_size=8))
def test_of_every_knot_a_cycle_is_named_and_no_task_twice(needs: dict[str, list[str]]) -> None:
    found = list(cycles(needs))
    named = [key for cycle in found for key in cycle[1:]]
    assert len(named) == len(set(named))
    for cycle in found:
        assert cycle[0] == cycle[-1]
        assert all(first in needs[second] for first, second in pairwise(cycle))
    left = {key: [n for n in needs[key] if n not in named] for key in needs if key not in named}
    graphlib.TopologicalSorter(left).prepare()


def test_a_slip_in_a_template_does_not_hide_the_next_one() -> None:
    tasks: dict[str, Any] = {f"t{n}": {"extends": "base"} for n in range(300)}
    tasks["last"] = {"capability": "c", "with": {"x": "${{ tasks.nobody.result }}"}}
    base = {"capability": "c", "with": {"x": "${{ nope }}"}}
    data = {"name": "x", "templates": {"base": base}, "tasks": tasks}
    told = problems_of(json.dumps(data, indent=1))
    assert [problem.path for problem in told] == ["tasks.t0.with.x", "tasks.last.with.x"]


def test_a_need_that_stands_twice_is_told() -> None:
    data = {"name": "x", "tasks": {"a": {"capability": "c"}}}
    data["tasks"]["b"] = {"capability": "c", "needs": ["a", "a"]}  # type: ignore[index]
    (problem,) = problems_of(json.dumps(data), "json")
    assert problem == Problem("`a` stands twice", "tasks.b.needs[1]", 1)


def test_a_task_may_read_any_task_upstream_but_no_other() -> None:
    tasks: dict[str, Any] = {key: {"capability": "c"} for key in "abcd"}
    tasks["b"]["needs"] = "a"
    tasks["c"]["needs"] = "b"
    tasks["c"]["with"] = {"far": "${{ tasks.a.result }}", "beside": "${{ tasks.d.result }}"}
    (problem,) = problems_of(json.dumps({"name": "x", "tasks": tasks}), "json")
    assert problem.path == "tasks.c.with.beside"
    assert "does not come before this one" in problem.message


def test_empty_entries_count_as_absent() -> None:
    definition = parse(
        "name: x\nversion:\ntasks:\n  t:\n    capability: c\n    needs:\n    with:\n"
    )
    assert definition == Definition("x", (TaskSpec("t", "c"),))


def test_numbers_are_versions_too() -> None:
    assert parse("name: x\nversion: 3\ntasks: {t: {capability: c}}").version == "3"
    assert parse("name: x\nversion: 1.5\ntasks: {t: {capability: c}}").version == "1.5"


def test_too_many_problems_end_in_a_word() -> None:
    tasks = "\n".join(f"  t{number}: {{capability: c, nedds: x}}" for number in range(500))
    told = problems_of(f"name: x\ntasks:\n{tasks}")
    assert len(told) == 101
    assert told[-1].message == "there are more than 100 problems"


def test_too_many_tasks_are_refused() -> None:
    tasks = "\n".join(f"  t{number}: {{capability: c}}" for number in range(10_001))
    (problem,) = problems_of(f"name: x\ntasks:\n{tasks}")
    assert problem.message == "10001 tasks; at most 10000 are allowed"
    assert problem.path == "tasks"


@pytest.mark.slow
def test_ten_thousand_tasks_are_read_in_a_few_seconds() -> None:
    tasks = "\n".join(
        f"  t{n}:\n    capability: c\n    needs: [{f't{n - 1}' if n else ''}]\n"
        f"    requires: [gpu]\n    retry: {{limit: 3, initial: 1s}}\n    timeout: 2m\n"
        f'    with:\n      repo: ${{{{ inputs.repo }}}}\n      text: "n ${{{{ {n} + 1 }}}}"\n'
        f"    outputs:\n      x: ${{{{ result.x{n} }}}}\n"
        for n in range(10_000)
    )
    started = time.thread_time()
    definition = parse(f"name: big\ntasks:\n{tasks}")
    # Measuring coverage makes Python several times slower.
    assert time.thread_time() - started < (40 if sys.gettrace() else 8)
    assert len(definition.tasks) == 10_000


def test_the_schema_of_the_format_accepts_what_the_parser_accepts() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert list(validator.iter_errors(read(GOOD).data)) == []
    assert list(validator.iter_errors(parse(GOOD).as_dict())) == []
    wrong = read(GOOD).data
    wrong["tasks"]["scan"]["capabilty"] = "x"
    wrong["tasks"]["review"]["retry"]["limt"] = 3
    assert len(list(validator.iter_errors(wrong))) == 2


PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0$"), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3),
    max_leaves=5,
)
FRAGMENTS = st.sampled_from(
    [
        "name: x\n", "tasks:\n", "  t:\n", "    capability: c\n", "    needs: [t]\n", "&a ", "*a",
        "${{ ", " }}", "inputs", ": ", "\n", "- ", "[", "]", "{", "}", "'", '"', "\\", "!!x ", "? ",
        "| ", "> ", "%", "---\n", "...\n", "#", "\t", "0x", "1e9", "null", "a", "retry", "timeout",
        "outputs", "priority", "with", "version", "properties", "$ref", "pattern", "type", "object",
        "extends: t\n", "templates:\n", "defaults:\n", "for_each", "if", "repeat", "finally:\n",
    ]
)  # fmt: skip


@given(
    st.text() | st.binary() | st.lists(FRAGMENTS, max_size=30).map("".join),
    st.sampled_from(["yaml", "json"]),
)
def test_no_text_raises_anything_but_invalid(text: str | bytes, media_type: Any) -> None:
    with suppress(InvalidError, TooLargeError):
        parse(text, media_type=media_type)


@given(st.recursive(VALUES, lambda inner: st.dictionaries(
    st.sampled_from(
        ["name", "tasks", "t", "u", "capability", "needs", "with", "retry", "limit", "inputs",
         "properties", "outputs", "type", "$ref", "$defs", "pattern", "default", "requires",
         "tasks", "if", "when", "for_each", "max_parallel", "repeat", "until", "catch", "undo",
         "on", "result", "timeout", "run", "uses", "extends", "templates", "defaults", "finally",
         "returns", "anyOf", "enum", "items", "concurrency", "rate_limit", "key", "depends_on"]
    ), inner, max_size=5)))  # fmt: skip
def test_no_data_raises_anything_but_invalid(data: Any) -> None:
    with suppress(InvalidError):
        parse(json.dumps(data), media_type="json")
