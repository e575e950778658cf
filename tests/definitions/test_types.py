"""What schemas declare is checked through all expressions at upload."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.errors import InvalidError
from tasks.cel_types import ANY, MAX_DEPTH, Type, either, list_of, map_of, of_schema, of_value
from workflows.definition import from_data, parse

SCORE = {
    "type": "object",
    "properties": {
        "score": {"type": "integer"},
        "ratio": {"type": "number"},
        "name": {"type": "string"},
        "ok": {"type": "boolean"},
        "level": {"enum": ["low", "high"]},
        "maybe": {"type": ["integer", "null"]},
        "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "files": {"type": "array", "items": {"$ref": "#/$defs/file"}},
        "free": {"type": "object"},
        "open": {"type": "object", "properties": {"a": {}}, "additionalProperties": True},
        "any": {},
    },
    "$defs": {"file": {"type": "object", "properties": {"path": {"type": "string"}}}},
}


def problems_of(**tasks: Any) -> list[tuple[str, str]]:
    try:
        from_data({"name": "x", "tasks": {"a": {"capability": "c", "returns": SCORE}, **tasks}})
    except InvalidError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


def judged(condition: str) -> list[str]:
    """Return what is told about an `if` that may read task `a`, as `r`."""
    code = re.sub(r"\br\.", "tasks.a.result.", condition)
    told = problems_of(b={"capability": "c", "needs": "a", "if": code})
    assert all(path == "tasks.b.if" for path, _ in told)
    return [message for _, message in told]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("r.scor > 1", "`tasks.a.result` has no `scor`; did you mean `score`? (character 1 of"),
        ("has(r.scor)", "has no `scor`; did you mean `score`?"),
        ('tasks.a["result"].scor > 1', "has no `scor`"),
        ('r.score > "x"', "`>` cannot be applied to a whole number and text (character 22 of"),
        ("r.name > 1", "`>` cannot be applied to text and a whole number"),
        ('r.score == "1"', "a whole number is never equal to text"),
        ("r.ok < 1", "`<` cannot be applied to true or false and a whole number"),
        ('r.score + "x" == "1x"', "`+` cannot be applied to a whole number and text"),
        ("r.score + 1.5 > 2.0", "convert with double() or int()"),
        ('r.ratio + "x" == ""', "`+` cannot be applied to a number and text"),
        ("r.score % 2.0 == 0.0", "`%` cannot be applied to"),
        ("r.score", "must be true or false, this is a whole number"),
        ("r.ok && r.name", "a condition must be true or false, this is text"),
        ("r.name ? true : false", "a condition must be true or false, this is text"),
        ("!r.score", "a condition must be true or false, this is a whole number"),
        ("r.files.path == ''", "`tasks.a.result.files` is a list, it has no `path`"),
        ("r.files[0].pth == ''", "has no `pth`; did you mean `path`?"),
        ("r.files['x'] == ''", "is a list, it has no `x`"),
        ("r.files.exists(f, f.pth == '')", "`f` has no `pth`; did you mean `path`?"),
        ("r.files.map(f, f.path).exists(p, p == 1)", "text is never equal to a whole number"),
        ("r.files.filter(f, f.path != '')[0].size > 1", "this has no `size`"),
        ("r.files.all(f, f.path)", "a condition must be true or false, this is text"),
        ("r.score.exists(x, x == 1)", "`tasks.a.result.score` is a whole number, not a list"),
        ("1 in r.score", "`in` cannot be applied to a whole number and a whole number"),
        ("r.score.startsWith('x')", "`startsWith` cannot be applied to a whole number"),
        ("size(r.score) > 1", "`size` cannot be applied to a whole number"),
        ("r.name.split(',').size() > 'x'", "`>` cannot be applied to"),
        ("r.name.x == 1", "`tasks.a.result.name` is text, it has no `x`"),
        ("r.maybe > 'x'", "cannot be applied to a whole number or null and text"),
        ("r.either == true", "is never equal to true or false"),
        ("r.level == 'hihg'", 'it is never "hihg", but one of "high", "low"; did you mean `high`?'),
        ("r.level in ['low', 'hihg']", 'it is never "hihg"'),
        ("tasks.a.status == 'complete'", "did you mean `completed`?"),
        ("tasks.a.error.typ == ''", "`tasks.a.error` has no `typ`; did you mean `type`?"),
        ("tasks.a.status > 1", "`>` cannot be applied to text and a whole number"),
        ("run.id == 1", "`==` cannot be applied to (string, int)"),
        ("{'k': r.score}.k == 'x'", "a whole number is never equal to text"),
        ("[r.score][0] == 'x'", "a whole number is never equal to text"),
        ("-r.name == 1", "`-` cannot be applied to text"),
    ],
)
def test_what_cannot_be_right_is_told_at_upload(condition: str, message: str) -> None:
    told = judged(condition)
    assert len(told) == 1, told
    assert message in told[0]


@pytest.mark.parametrize(
    "condition",
    [
        "r.score > 1 && r.score > 1.5",
        "r.ratio > 1 && r.ratio * 1.5 > 2.0 && r.ratio + 1 > 2",
        "double(r.score) + 1.5 > 2.0",
        "r.maybe == null || r.maybe > 3",
        "r.score == null",
        "r.either == 'x' || r.either == 1",
        "r.free.whatever.deep > 1",
        "r.open.a == 1 && r.open.b == 'x'",
        "r.any.thing[0] == 1 && r.any",
        "r.level == 'high' || r.level in ['low', 'high']",
        "r.level == r.name",
        "r.level + 'x' == 'lowx'",
        "r.files.exists(f, f.path.endsWith('.py') && size(f.path) > 3)",
        "r.files.map(f, {'p': f.path}).filter(x, x.p != '').size() > 0",
        "r.files == []",
        "'x' in r.files.map(f, f.path)",
        "'score' in tasks.a.result",
        "tasks.a.result['score'] == 1",
        "tasks.a.error == null || tasks.a.error.type == 'timeout'",
        "tasks.a.status in ['failed', 'skipped']",
        "timestamp('2030-01-01T00:00:00Z') - timestamp('2029-01-01T00:00:00Z') > duration('1h')",
        "[1, 'a'].exists(x, x == 'a')",
        "(r.ok ? r.score : r.name) == 1",
        "type(r.score) == int",
        "dyn(r.score) == 'x'",
        "string(r.score) == '1'",
        "r.files.map(f, f).size() == r.score",
    ],
)
def test_what_may_be_right_is_left_alone(condition: str) -> None:
    assert judged(condition) == []


def test_items_have_the_type_of_the_lists_elements() -> None:
    over = {"capability": "c", "needs": "a", "for_each": "${{ tasks.a.result.files }}"}
    right = {"with": {"p": "${{ item.path + '!' }}", "n": "${{ index + 1 }}"}}
    assert problems_of(b={**over, **right}) == []
    wrong = {"with": {"p": "${{ item.pth }}", "n": "${{ index + 'x' }}"}}
    (path, message), (other, _) = problems_of(b={**over, **wrong})
    assert (path, other) == ("tasks.b.with.p", "tasks.b.with.n")
    assert "`item` has no `pth`; did you mean `path`?" in message


@pytest.mark.parametrize("over", ["score", "name", "free", "level"])
def test_for_each_goes_over_lists_only(over: str) -> None:
    for_each = f"${{{{ tasks.a.result.{over} }}}}"
    told = problems_of(b={"capability": "c", "needs": "a", "for_each": for_each})
    assert [path for path, _ in told] == ["tasks.b.for_each"]
    assert "must be a list, this is" in told[0][1]


def test_results_of_items_are_a_list_and_outputs_are_made_of_it() -> None:
    each = {
        "capability": "c",
        "for_each": [{"n": 1}, {"n": 2}],
        "returns": SCORE,
        "outputs": {"all": "${{ result.map(r, r.score) }}", "no": "${{ result.score }}"},
        "undo": {"capability": "u", "with": {"x": "${{ result.score + item.n }}"}},
    }
    reads = {
        "right": "${{ tasks.each.result[0].score + tasks.each.outputs.all[1] }}",
        "wrong": "${{ tasks.each.result.score }}",
        "also": "${{ tasks.each.outputs.all + 1 }}",
    }
    told = problems_of(each=each, b={"capability": "c", "needs": "each", "with": reads})
    assert [path for path, _ in told] == [
        "tasks.each.outputs.no",
        "tasks.b.with.wrong",
        "tasks.b.with.also",
    ]


def test_what_the_engine_makes_itself_has_a_type() -> None:
    tasks = {
        "ask": {"uses": "approval"},
        "maybe": {"uses": "approval", "catch": {"result": "no"}},
        "b": {
            "capability": "c",
            "needs": ["ask", "maybe"],
            "if": "tasks.ask.result.aproved",
            "with": {"x": "${{ tasks.maybe.result + '' }}"},
        },
    }
    ((path, message),) = problems_of(**tasks)
    assert path == "tasks.b.if"
    assert "did you mean `approved`?" in message


def test_outputs_loops_and_undo_know_the_result() -> None:
    task = {
        "capability": "c",
        "returns": SCORE,
        "repeat": {"until": "result.scor > iteration || previous == null"},
        "with": {"last": "${{ previous.scor }}"},
        "outputs": {"x": "${{ result.scor }}"},
        "undo": {"capability": "u", "with": {"x": "${{ result.scor }}"}},
        "catch": {"result": "${{ error.messag }}"},
    }
    assert sorted(path for path, _ in problems_of(b=task)) == [
        "tasks.b.catch.result",
        "tasks.b.outputs.x",
        "tasks.b.repeat.until",
        "tasks.b.undo.with.x",
        "tasks.b.with.last",
    ]


def test_a_block_gets_its_inputs_and_gives_its_outputs_with_their_types() -> None:
    block = {
        "needs": "a",
        "with": {"n": "${{ tasks.a.result.score }}"},
        "tasks": {"t": {"capability": "c", "with": {"x": "${{ inputs.n + 'x' }}"}}},
        "outputs": {"m": "${{ inputs.n }}"},
    }
    reads = {"x": "${{ tasks.block.result.m + 'x' }}", "y": "${{ tasks.block.result.q }}"}
    told = problems_of(block=block, b={"capability": "c", "needs": "block", "with": reads})
    assert [path for path, _ in told] == [
        "tasks.block.tasks.t.with.x",
        "tasks.b.with.x",
        "tasks.b.with.y",
    ]


def test_the_line_of_a_wrong_expression_is_told() -> None:
    text = "name: x\ninputs:\n  properties:\n    n: {type: integer}\ntasks:\n  t:\n"
    with pytest.raises(InvalidError) as caught:
        parse(f"{text}    capability: c\n    if: inputs.n > 'x'\n")
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == ("tasks.t.if", 8)
    assert "(character 10 of `inputs.n > 'x'`)" in problem.message


def test_what_schemas_do_not_say_clearly_is_anything() -> None:
    unclear: list[Any] = [
        {},
        {"allOf": [{"type": "string"}]},
        {"anyOf": [{"type": "string"}], "type": "integer"},
        {"not": {"type": "string"}},
        {"minimum": 3},
        True,
    ]
    assert [of_schema(schema) for schema in unclear] == [ANY] * len(unclear)
    assert of_schema({"properties": {"a": {"const": 1}}}) == map_of({"a": of_value(1)})


def test_types_stay_small_whatever_is_nested() -> None:
    type_: Type = of_value({"a": 1})
    for _ in range(100):
        type_ = map_of({"x": type_, "y": type_})
    assert type_.depth <= MAX_DEPTH + 1
    assert either([type_, map_of({"x": type_})]).depth <= MAX_DEPTH + 1
    chain = ANY
    for _ in range(5_000):
        chain = list_of(either([chain, list_of(chain)]))
    assert chain.is_a("list")


SCHEMAS = st.recursive(
    st.sampled_from(
        [{}, {"type": "string"}, {"type": "integer"}, {"type": ["null", "boolean"]}, {"enum": [1, "a"]}]
    ),
    lambda inner: (
        st.builds(lambda item: {"type": "array", "items": item}, inner)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(
            lambda fields: {"type": "object", "properties": fields}
        )
        | st.lists(inner, min_size=1, max_size=2).map(lambda each: {"anyOf": each})
    ),
    max_leaves=6,
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=6,
)


def fits(value: Any, type_: Type) -> bool:
    """Tell whether a value is one of a type, by the words of CEL."""
    if type_.kinds is None:
        return True
    kind = {type(None): "null", bool: "bool", int: "int", str: "string", list: "list", dict: "map"}
    if kind[type(value)] not in type_.kinds:
        return False
    if isinstance(value, list):
        return all(fits(each, type_.item or ANY) for each in value)
    if isinstance(value, dict) and type_.fields is not None:
        return all(fits(each, type_.fields[key]) for key, each in value.items())
    return True


@given(VALUES, VALUES)
def test_a_value_has_its_own_type_and_every_wider_one(one: Any, other: Any) -> None:
    assert fits(one, of_value(one))
    assert fits(one, either([of_value(one), of_value(other)]))
    assert fits(one, either([of_value(other), of_value(one)]))


@given(SCHEMAS, SCHEMAS)
def test_both_sides_of_a_choice_are_kept(one: Any, other: Any) -> None:
    both = either([of_schema(one), of_schema(other)])
    for each in (of_schema(one), of_schema(other)):
        assert both.kinds is None or (each.kinds or frozenset()) <= both.kinds
