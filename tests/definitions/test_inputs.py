"""Inputs: their JSON Schema, and values against it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from opscore.errors import InvalidError
from workflows.definition import Definition, from_data
from workflows.inputs import checked_inputs

TASKS = {"t": {"capability": "c"}}


def definition(schema: Any) -> Definition:
    return from_data({"name": "x", "inputs": schema, "tasks": TASKS})


SCHEMA = {
    "type": "object",
    "required": ["repo"],
    "properties": {
        "repo": {"type": "string", "pattern": "^[a-z/]+$"},
        "depth": {"type": "integer", "default": 3, "minimum": 1},
        "report": {
            "type": "object",
            "properties": {"title": {"type": "string", "default": "Report"}},
        },
        "files": {"type": "array", "items": {"$ref": "#/$defs/file"}},
        "anything": True,
    },
    "$defs": {"file": {"type": "object", "required": ["path"]}},
}


def test_defaults_are_filled_in_at_every_level() -> None:
    given = {"repo": "a/b", "report": {}}
    filled = definition(SCHEMA).check_inputs(given)
    assert filled == {"repo": "a/b", "depth": 3, "report": {"title": "Report"}}
    assert given == {"repo": "a/b", "report": {}}


@pytest.mark.parametrize(
    ("inputs", "path", "message"),
    [
        ({}, "inputs", "'repo' is a required property"),
        ({"repo": 5}, "inputs.repo", "is not of type 'string'"),
        ({"repo": "A"}, "inputs.repo", "does not match"),
        ({"repo": "a", "depth": 0}, "inputs.depth", "minimum"),
        ({"repo": "a", "files": [{"path": 1}, {}]}, "inputs.files[1]", "'path' is a required"),
        ({"repo": "a", "reop": 1}, "inputs.reop", "no such input; did you mean `repo`?"),
        ({"repo": "a\0"}, "inputs.repo", "NUL"),
        ({"repo": "A" * 100_000}, "inputs.repo", "does not match"),
    ],
)
def test_wrong_inputs_are_named_by_their_path(inputs: Any, path: str, message: str) -> None:
    with pytest.raises(InvalidError) as caught:
        definition(SCHEMA).check_inputs(inputs)
    (problem,) = caught.value.problems
    assert message in problem.message
    assert len(problem.message) < 400
    if "NUL" not in message:
        assert problem.path == path


def test_all_wrong_inputs_are_told_at_once_up_to_a_hundred() -> None:
    with pytest.raises(InvalidError) as caught:
        definition(SCHEMA).check_inputs({"depth": "x", "report": 3, "nope": 1})
    assert {problem.path for problem in caught.value.problems} == {
        "inputs", "inputs.depth", "inputs.report", "inputs.nope",
    }  # fmt: skip
    with pytest.raises(InvalidError) as caught:
        definition(SCHEMA).check_inputs({"repo": "a", "files": [{}] * 1_000})
    assert len(caught.value.problems) == 100


@pytest.mark.parametrize("schema", [None, {}, {"type": "object"}])
def test_without_declared_properties_anything_goes(schema: Any) -> None:
    data = {"name": "x", "tasks": TASKS} | ({} if schema is None else {"inputs": schema})
    assert from_data(data).check_inputs({"a": [1]}) == {"a": [1]}


def test_an_open_schema_takes_more_than_it_declares() -> None:
    schema = {"properties": {"a": {}}, "additionalProperties": {"type": "integer"}}
    assert definition(schema).check_inputs({"b": 1}) == {"b": 1}
    with pytest.raises(InvalidError):
        definition(schema).check_inputs({"b": "x"})


def test_a_pattern_that_would_backtrack_for_ever_answers_at_once() -> None:
    schema = {"properties": {"a": {"pattern": "^(a+)+$"}}}
    started = time.thread_time()
    with pytest.raises(InvalidError, match="do not meet"):
        definition(schema).check_inputs({"a": "a" * 5_000 + "!"})
    assert time.thread_time() - started < 1


def test_inputs_nested_without_end_are_refused() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    schema = {"properties": {"a": {"enum": [1]}}}
    with pytest.raises(InvalidError):
        checked_inputs(schema, {"a": deep})
    while deep:
        deep = deep.pop()


@pytest.mark.parametrize(
    ("schema", "path", "message"),
    [
        ({"type": "strin"}, "inputs.type", "`type: object`"),
        ({"properties": {"a": {"type": "strin"}}}, "inputs.properties.a.type", "'strin' is not"),
        ({"properties": {"a": 5}}, "inputs.properties.a", "5 is not of type"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "inputs.$schema", "only"),
        ({"$id": "http://example.com"}, 'inputs["$id"]', "not offered"),
        ({"patternProperties": {"a": {}}}, "inputs.patternProperties", "not offered"),
        ({"$ref": "http://example.com/x"}, 'inputs["$ref"]', "this schema's own `$defs`"),
        ({"properties": {"default": {"$ref": "file:///etc/passwd"}}}, "", "own `$defs`"),
        ({"anyOf": [{"$ref": "#"}]}, "", "own `$defs`"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "", "there is no `b` in `$defs`"),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, "", "cannot refer to others"),
        ({"properties": {"a": {"pattern": "(?=x)"}}}, "inputs.properties.a.pattern", "invalid"),
        (
            {"properties": {"a": {"type": "integer", "default": "x"}}},
            "inputs.properties.a.default",
            "'x' is not of type 'integer'",
        ),
    ],
)
def test_a_wrong_or_risky_schema_is_refused_at_upload(schema: Any, path: str, message: str) -> None:
    with pytest.raises(InvalidError) as caught:
        definition(schema)
    matching = [problem for problem in caught.value.problems if message in problem.message]
    assert matching
    if path:
        assert matching[0].path in {path, path.replace('["', ".").replace('"]', "")} | {
            path.replace(".$schema", '["$schema"]')
        }


def test_data_inside_a_schema_is_not_taken_for_a_schema() -> None:
    schema = {
        "properties": {
            "a": {"default": {"$ref": "http://x", "pattern": "("}},
            "pattern": {"type": "string"},
            "patternProperties": {"enum": ["$id"]},
        }
    }
    assert definition(schema).check_inputs({"pattern": "("})["pattern"] == "("


DIALECT = "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(
    ("items", "are_unique"),
    [
        ([1, True, "1", None, 1.5, [1], {"a": 1}, {"a": True}], True),
        ([{"a": 1, "b": 2}, {"a": 2, "b": 1}], True),
        ([1, 1.0], False),
        ([{"a": 1, "b": [2.0]}, {"b": [2], "a": 1}], False),
        ([[0], [0]], False),
    ],
)
def test_unique_items_are_told_apart_as_json_schema_says(items: Any, *, are_unique: bool) -> None:
    made = definition({"properties": {"a": {"uniqueItems": True}, "b": {"uniqueItems": False}}})
    assert made.check_inputs({"b": items})
    if are_unique:
        assert made.check_inputs({"a": items})
    else:
        with pytest.raises(InvalidError) as caught:
            made.check_inputs({"a": items})
        assert "non-unique" in caught.value.problems[0].message


@pytest.mark.parametrize("rule", [{}, {"$schema": DIALECT}])
def test_many_unique_objects_are_checked_at_once(rule: dict[str, Any]) -> None:
    made = definition({"properties": {"a": {**rule, "uniqueItems": True}}})
    items = [{"n": n} for n in range(16_000)]
    started = time.thread_time()
    assert made.check_inputs({"a": items})
    assert time.thread_time() - started < 5


def test_a_schema_whose_lists_hold_many_objects_is_refused_at_once() -> None:
    started = time.thread_time()
    with pytest.raises(InvalidError):
        definition({"required": [{"n": n} for n in range(16_000)]})
    assert time.thread_time() - started < 10
