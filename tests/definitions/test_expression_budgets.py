"""Run-away expressions: every one ends soon, in little memory, with a clear error."""

from __future__ import annotations

import time
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.expressions import ExpressionError, render

DOUBLED = ".map(x, [x, x, x, x, x, x, x, x])"


@pytest.mark.parametrize(
    "expression",
    [
        # The library's own budget ends this one: ten million iterations.
        "l.exists(a, " + "l.exists(b, " * 6 + "a == 'x'" + ")" * 7,
        # These make few iterations, and grow or compare without end.
        "['aaaaaaaa']" + ".map(x, x + x + x + x)" * 15,
        "['aaaaaaaa']" + ".map(x, x + x)" * 12 + ".map(x, x + x)" * 12 + "[0].size()",
        f"dyn([[1]]{DOUBLED * 12}) == dyn([[1]]{DOUBLED * 12})",
        f"size([[1]]{DOUBLED * 12})",
        "l.map(a, l.map(b, l.map(c, text)))",
        "text.replace('', text)",
        "l.map(a, text.split('')).map(a, a.join(text))",
    ],
)
def test_a_run_away_expression_is_stopped_at_once(expression: str) -> None:
    names = {"l": [str(number) for number in range(100)], "text": "x" * 100_000}
    for name in names:
        expression = expression.replace(f"{name}.", f"inputs.{name}.")
    expression = expression.replace("text)", "inputs.text)").replace("inputs.inputs", "inputs")
    started = time.thread_time()
    with pytest.raises(ExpressionError) as caught:
        render(f"${{{{ {expression} }}}}", {"inputs": names})
    assert "too long" in str(caught.value) or "too many iterations" in str(caught.value)
    assert time.thread_time() - started < 5


def random_expression(rng: Random, depth: int, names: tuple[str, ...] = ()) -> str:
    """Nest what makes values grow and what walks through them."""
    if depth == 0 or rng.random() < 0.1:
        return rng.choice(["inputs.list", "inputs.text", "inputs.map", "[1, 2]", "'ab'", *names])
    one, two = (f"dyn({random_expression(rng, depth - 1, names)})" for _ in range(2))
    name = f"v{depth}"
    body = random_expression(rng, depth - 1, (*names, name))
    return rng.choice(
        [
            f"{one}.map({name}, {body})",
            f"{one}.filter({name}, {name} in dyn({body}))",
            f"{one}.exists({name}, {name} == dyn({body}))",
            f"({one} + {two})",
            f"[{one}, {two}, {one}]",
            f"{{'k': {one}}}",
            f"{one}.replace({two}, {two})",
            f"{one}.split({two})",
            f"{one}.join({two})",
            f"({one} == {two} ? {one} : {two})",
        ]
    )


@given(st.randoms(use_true_random=False), st.integers(2, 6))
def test_no_expression_is_endless(rng: Random, depth: int) -> None:
    inputs = {"list": [str(number) * 9 for number in range(60)], "text": "word " * 4_000}
    scope = {"inputs": {**inputs, "map": {"a": [1, {"b": "x" * 500}], "c": "y" * 2_000}}}
    started = time.thread_time()
    with suppress(ExpressionError):
        render(f"${{{{ {random_expression(rng, depth)} }}}}", scope)
    assert time.thread_time() - started < 5


def test_a_long_list_is_mapped_in_little_time() -> None:
    files = [{"path": f"src/{number}.py", "lines": number} for number in range(20_000)]
    template = "${{ inputs.files.filter(f, f.lines >= 10000).map(f, 'x/' + f.path) }}"
    started = time.thread_time()
    value = render(template, {"inputs": {"files": files, "other": [1]}})
    assert value == [f"x/src/{number}.py" for number in range(10_000, 20_000)]
    assert time.thread_time() - started < 5
    assert len(files) == 20_000


def test_mapping_a_list_piece_by_piece_has_the_same_budget() -> None:
    scope = {"inputs": {"l": ["x" * 1_000] * 20_000}}
    with pytest.raises(ExpressionError, match="too long"):
        render("${{ inputs.l.map(x, x + x + x + x) }}", scope)


def test_a_list_that_is_read_twice_is_not_cut_into_pieces() -> None:
    scope = {"inputs": {"l": list(range(1_000))}}
    template = "${{ inputs.l.filter(x, x > inputs.l[998]) }}"
    assert render(template, scope) == [999]
    assert render("${{ inputs.l.filter(x, x == size(inputs)) }}", scope) == [1]


def test_a_list_with_one_large_element_can_still_be_mapped() -> None:
    files = [{"path": str(number), "text": ""} for number in range(1_000)]
    files[500]["text"] = "x" * 1_000_000
    value = render("${{ inputs.files.map(f, f.path + '!') }}", {"inputs": {"files": files}})
    assert value[500] == "500!"


def test_all_values_of_a_template_share_one_budget() -> None:
    scope = {"inputs": {"big": "x" * 10_000_000, "list": ["y" * 10_000_000]}}
    assert len(render(["${{ inputs.big }}"] * 3, scope)) == 3
    for name in ("big", "list"):
        with pytest.raises(ExpressionError, match="larger than 64 MB"):
            render([f"${{{{ inputs.{name} }}}}"] * 10, scope)
