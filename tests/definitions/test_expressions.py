"""Expressions: what they read, what they give, and what is told when they are wrong."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.errors import InvalidError
from tasks import cel
from tasks.cel_tree import decode
from tasks.cel_types import ANY, of_schema
from tasks.expression_checks import Names, task_type, template_type
from tasks.expressions import (
    ExpressionError,
    evaluate,
    references,
    references_of,
    render,
)

SCOPE: dict[str, Any] = {
    "inputs": {
        "count": 3,
        "ratio": 2.5,
        "text": "hello",
        "flag": True,
        "nothing": None,
        "files": [{"path": "a.py", "score": 1}, {"path": "b.py", "score": 9}],
    },
    "tasks": {
        "scan": {"result": {"found": [1, 2], "odd": "a\0b", "huge": 2**70}, "outputs": None},
        "a-b": {"result": 7},
    },
    "run": {"id": "0197", "workflow": "demo"},
    "result": 11,
}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("${{ inputs.count }}", 3),
        ("${{ inputs.ratio }}", 2.5),
        ("${{ inputs.flag }}", True),
        ("${{ inputs.nothing }}", None),
        ("${{ inputs.files }}", SCOPE["inputs"]["files"]),
        ("${{ tasks.scan.result.huge }}", 2**70),
        ("${{ tasks.scan.result.odd }}", "a\0b"),
        ("${{ inputs.files[1].path }}", "b.py"),
        ('${{ tasks["a-b"].result }}', 7),
        ("${{ tasks.scan.result.found[0] + 1 }}", 2),
        ("${{ inputs.count > 2 ? 'many' : 'few' }}", "many"),
        ("${{ inputs.files.filter(f, f.score > 5).map(f, f.path) }}", ["b.py"]),
        ("${{ {'a': {'b': 1}} }}", {"a": {"b": 1}}),
        ("${{ '}}' }}", "}}"),
        ('${{ "a" // }} is no end here\n + "b" }}', "ab"),
        ("${{ r'a\\b' + '''c''' }}", "a\\bc"),
        ("${{ has(inputs.missing) }}", False),
        ("${{ double(inputs.count) + inputs.ratio }}", 5.5),
        ("${{ timestamp('2026-01-02T03:04:05Z') }}", "2026-01-02T03:04:05Z"),
        ("${{ duration('90s') }}", "90s"),
        ("${{ duration('1.5s') }}", "1.5s"),
        ("${{ b'ab' }}", "YWI="),
        ("${{ type(1) }}", "int"),
        ("${{ 7u }}", 7),
        ("${{ inputs.text.upperAscii() }}", "HELLO"),
        ("${{ ['a', 'b'].join(', ') }}", "a, b"),
        ("${{ 'a,b'.split(',') }}", ["a", "b"]),
        ("${{ 'aXb'.replace('X', '-') }}", "a-b"),
        ("${{ inputs.files.exists(f, f.path.matches('^b')) && 1 in [1, 2] }}", True),
        ("${{ -inputs.count }}", -3),
        ("${{ has(tasks.scan.result.found) && has(inputs.files[0].path) }}", True),
        ("${{ size(inputs) > 3 && inputs.count == 3 }}", True),
        ("${{ inputs.count == 3 && size(inputs) > 3 }}", True),
        ("${{ 'text' in inputs ? result : 0 }}", 11),
        ("${{ -9223372036854775808 }}", -(2**63)),
        ("${{ 1.25 }}", 1.25),
        ("${{ null }}", None),
        ("${{ google.protobuf.Duration{seconds: 5} }}", "5s"),
        ("${{ inputs.files.all(f, has(f.path) && f.score > 0) }}", True),
        ("${{ inputs.files.exists_one(f, f.path == 'a.py') }}", True),
        ("${{ {'a': 1}.map(k, k) }}", ["a"]),
        ("${{ [1, 2].map(tasks, .tasks.scan.result.found[0] + tasks) }}", [2, 3]),
        ("${{ inputs.count }}\n", 3),
        ("is ${{ inputs.text }}", "is hello"),
        ("${{ inputs.count }}${{ inputs.text }}", "3hello"),
        ("${{ inputs.files[0] }}.", '{"path": "a.py", "score": 1}.'),
        ("${{ inputs.flag }}/${{ inputs.nothing }}", "true/null"),
        ("$${{ inputs.count }}", "${{ inputs.count }}"),
        ("no expression", "no expression"),
        (5, 5),
        (None, None),
        ({"a": ["${{ run.id }}", {"b": "${{ run.workflow }}"}]}, {"a": ["0197", {"b": "demo"}]}),
    ],
)
def test_an_expression_gives_this_value(template: Any, value: Any) -> None:
    rendered = render(template, SCOPE)
    assert rendered == value
    assert type(rendered) is type(value)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("inputs.missing", "`inputs` has no `missing`"),
        ("inputs.missing + 1", 'there is no key "missing"'),
        ("inputs.text.x", "`inputs.text` is text, it has no `x`"),
        ("inputs.count.x", "`inputs.count` is a number, it has no `x`"),
        ("inputs.files[7]", "`inputs.files` has 2 elements, there is no [7]"),
        ("inputs.files[7].path + 'x'", "there is no element 7 of 2"),
        ("result.x", "`result` is a number, it has no `x`"),
        ("inputs.files.x", "`inputs.files` is a list, it has no `x`"),
        ("inputs.files[-1]", "there is no [-1]"),
        ("inputs.count + inputs.ratio", "(int, double); convert with double() or int()"),
        ("inputs.count ? 1 : 2", "a condition must be true or false"),
        ("1 / 0", "divide by zero"),
        ("0.0 / 0.0", "infinite or undefined"),
        ("{1: 2}", "the keys of a map must be texts, not 1"),
        ("'\\u0000'", "NUL"),
        ("tasks.scan.result.odd + 'x'", "NUL"),
        ("string(b'\\000')", "NUL"),
        ("tasks.scan.result.huge + 1", "has more than 64 bits"),
        ("'a'.matches(inputs.text + '(')", "regular expression"),
        ("1 +", "ends too early"),
        ("", "is empty"),
        ("'\ud800'", "half of a surrogate pair"),
        ("'\0'", "NUL"),
        ("'%s'.format([1])", "format() is not offered"),
        ("'" + "x" * 4000 + "'", "longer than 4000 characters"),
        ("[" * 40 + "]" * 40, "nested too deeply"),
    ],
)
def test_an_expression_without_a_value_says_why_and_where(expression: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        render({"with": {"x": [f"${{{{ {expression} }}}}"]}}, SCOPE, path="tasks.review")
    assert message in str(caught.value)
    assert caught.value.path == "tasks.review.with.x[0]"
    assert isinstance(caught.value, InvalidError)


def test_an_open_expression_is_an_error() -> None:
    with pytest.raises(ExpressionError, match="is not closed"):
        render("${{ inputs.count", SCOPE)


def test_threads_may_share_expressions() -> None:
    def sums(start: int) -> list[Any]:
        return [
            render("${{ inputs.n * 2 + inputs.l[1] }}", {"inputs": {"n": n, "l": [0, n]}})
            for n in range(start, start + 500)
        ]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(sums, range(0, 2_000, 500)))
    assert [value for part in results for value in part] == [n * 3 for n in range(2_000)]


@pytest.mark.parametrize(
    ("template", "keys"),
    [
        ("${{ tasks.a.result }}", {"a"}),
        ("${{ tasks['a-b'].outputs.x + tasks.c.result.y[0] }}", {"a-b", "c"}),
        ({"x": ["${{ tasks.a.result }}", "and ${{ tasks.b.result }}"]}, {"a", "b"}),
        ("${{ 'tasks.no.result' + \"tasks.no.result\" }} // tasks.no.result", set()),
        ("${{ [1].map(tasks, tasks.no) }}", set()),
        ("${{ [1].map(x, tasks.a.result.filter(y, y == tasks.b.result)) }}", {"a", "b"}),
        ("${{ has(tasks.a.result.x) ? {'k': tasks.b.result} : {} }}", {"a", "b"}),
        ("$${{ tasks.no.result }}", set()),
        ("${{ not valid", set()),
        ("${{ not valid }}", set()),
        (None, set()),
        (3, set()),
    ],
)
def test_references_are_found_in_the_syntax_tree(template: Any, keys: set[str]) -> None:
    assert references(template) == keys


@pytest.mark.parametrize(
    ("expression", "keys"),
    [
        ("tasks.a.result.ok && tasks['b-c'].status == 'failed'", {"a", "b-c"}),
        ("${{ tasks.a.result.ok }}", {"a"}),
        ("${{ tasks.a.result }} and more", set()),
        ("tasks.a.result +", set()),
        ("", set()),
    ],
)
def test_references_are_found_in_one_expression(expression: str, keys: set[str]) -> None:
    assert references_of(expression) == keys


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("inputs.count > 2", True),
        (" ${{ inputs.count > 2 }}\n", True),
        ("inputs.count // a comment", 3),
        ("{'a': {'b': item.x + index + iteration}}", {"a": {"b": 6}}),
        ("previous == null ? error.type : ''", "timeout"),
    ],
)
def test_one_expression_is_evaluated_with_or_without_its_brackets(
    expression: str, value: Any
) -> None:
    own = {"item": {"x": 1}, "index": 2, "iteration": 3, "previous": None}
    scope = {**SCOPE, **own, "error": {"type": "timeout", "message": "late"}}
    assert evaluate(expression, scope) == value


@pytest.mark.parametrize("expression", ["", "a ${{ inputs.count }}", "1 +", "inputs.no", "${{ 1"])
def test_what_is_not_one_expression_has_no_value(expression: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate(expression, SCOPE, path="tasks.a.if")
    assert caught.value.path == "tasks.a.if"


REFERENCES = st.lists(
    st.sampled_from(["inputs", "tasks", "result", "a", "as", "in", "true", "x1", "_"]), min_size=1
).map(".".join)


@given(REFERENCES)
def test_a_plain_reference_is_read_as_the_library_reads_it(text: str) -> None:
    ours = cel._reference(text)
    if ours is not None:
        assert ours == decode(cel._environment().compile(text).serialize())


SCHEMA = {"type": "object", "properties": {"repo": {}, "depth": {}}}


def problems_of(template: Any, **options: Any) -> list[tuple[str, str]]:
    """Return (path, message) for what is wrong in an expression, or in a whole template."""
    names = {
        "tasks": {
            "scan": task_type(ANY, {"hot_spots": ANY}),
            "plain": task_type(ANY, {}),
            "a-b": None,
        },
        "known": {"scan", "plain", "a-b", "later", "review"},
        "inputs": of_schema(SCHEMA),
    }
    found: list[tuple[str, str]] = []
    whole = template if isinstance(template, dict) else {"x": f"${{{{ {template} }}}}"}

    def report(path: str, message: str) -> None:
        found.append((path, message))

    template_type(whole, "tasks.review.with", Names(**{**names, **options}), report)
    return found


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("tasks.scna.result", "there is no task `scna`; did you mean `scan`?"),
        ("has(tasks.scna.result)", "there is no task `scna`"),
        ("tasks.later.result", "task `later` does not come before this one; add it to `needs`"),
        ("tasks.review.result", "task `review` does not come before this one"),
        ("tasks.scan", "a task has `tasks.scan.result`, `outputs`, `status` and `error`"),
        ("tasks.scan.reslt", "not `reslt`; did you mean `result`?"),
        ("tasks.scan.outputs.hotspots", "no output `hotspots`; did you mean `hot_spots`?"),
        ("tasks.plain.outputs.x", "declares no outputs; use `tasks.plain.result`"),
        ("tasks.a-b.result", 'write tasks["a-b"]: `-` means minus'),
        ("tasks[inputs.repo].result", "the task must be written out"),
        ("size(tasks)", "the task must be written out"),
        ("inputs.reop", "there is no input `reop`; did you mean `repo`? (character 1 of"),
        ("result.x", "`result` is known only in the outputs of a task"),
        ("run.idd", "a run has `run.id` and `run.workflow`, not `idd`"),
        ("task.scan.result", "unknown name `task.scan.result`; did you mean `tasks`? (character 1"),
        ("foo + 1", "unknown name `foo`; expressions read inputs, tasks and run (character 1"),
        ("1 + + 2", "unexpected '+' (character 5 of `1 + + 2`)"),
        ("1 + 'a'", "`+` cannot be applied to (int, string) (character 3"),
        ("size(run.id) > 'a'", "`>` cannot be applied to"),
        ("!'a'", "a condition must be true or false"),
        ("[1", "ends too early"),
        ("inputs.repo @ 1", "unexpected"),
    ],
)
def test_a_wrong_expression_is_told_at_upload(expression: str, message: str) -> None:
    path, told = problems_of(expression)[0]
    assert message in told
    assert path == "tasks.review.with.x"


def test_all_problems_of_an_expression_are_told_at_once() -> None:
    told = [message for _, message in problems_of("inputs.reop + tasks.no.result + foo")]
    assert len(told) == 3
    assert "foo" in told[0]
    assert "reop" in told[1]
    assert "`no`" in told[2]


@pytest.mark.parametrize(
    "expression",
    [
        "tasks.scan.result.anything[0]",
        "tasks.scan.outputs.hot_spots",
        "tasks.scan.outputs",
        'tasks["a-b"].outputs.not_known',
        "inputs.repo",
        "inputs[inputs.repo]",
        "size(inputs)",
        "run.id + run.workflow",
        "size(run)",
        "[1].map(inputs, inputs)",
        "type(inputs.repo) == string",
    ],
)
def test_a_right_expression_has_no_problems(expression: str) -> None:
    assert problems_of(expression) == []


def test_result_is_known_in_the_outputs_of_a_task() -> None:
    assert problems_of("result.x", own={"result": ANY}) == []


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {},
        {"type": "object"},
        {**SCHEMA, "additionalProperties": True},
        {**SCHEMA, "anyOf": [{}]},
    ],
)
def test_inputs_are_not_judged_where_the_schema_is_open(schema: Any) -> None:
    assert problems_of("inputs.other", inputs=of_schema(schema)) == []


def test_an_open_expression_and_a_long_one_are_problems() -> None:
    ((path, message),) = problems_of({"y": "${{ x"})
    assert message == "`${{` is not closed by `}}` (write `$${{` for the text itself)"
    assert path == "tasks.review.with.y"
    ((_, message),) = problems_of("'" + "x" * 4000 + "'")
    assert message.startswith("longer than 4000 characters in `'xxx")
    assert len(message) < 150


@given(st.text(alphabet="$${{{}}}'\"\\/rb \nx1.[]()+") | st.text())
def test_any_text_is_rendered_or_refused_in_words(text: str) -> None:
    problems_of({"x": text})
    references(text)
    with suppress(ExpressionError):
        render(text, SCOPE)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(JSON)
def test_json_goes_through_the_library_unchanged(value: Any) -> None:
    rendered = render("${{ [inputs.v][0] }}", {"inputs": {"v": value}})
    assert json.dumps(rendered, sort_keys=True) == json.dumps(value, sort_keys=True)
    assert render("${{ inputs.v }}", {"inputs": {"v": value}}) is value
