"""YAML and JSON text: what is read, and what is refused, with its line."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from opscore.documents import MAX_BYTES, parent, read
from opscore.errors import InvalidError, Problem, TooLargeError
from opscore.texts import below


def refused(text: str | bytes, media_type: str = "yaml") -> Problem:
    with pytest.raises(InvalidError) as caught:
        read(text, media_type)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("12:30:00", "12:30:00"),
        ("2026-01-02", "2026-01-02"),
        ("1_000", "1_000"),
        ("017", 17),
        ("0o17", 15),
        ("0x1f", 31),
        ("-3", -3),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("~", None),
        ("null", None),
        ("", None),
        ("true", True),
        ("False", False),
        ("'5'", "5"),
        ("! 5", "5"),
        ('"a\\tb"', "a\tb"),
        ("${{ inputs.x }}", "${{ inputs.x }}"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_a_scalar_means_what_yaml_1_2_says(scalar: str, value: Any) -> None:
    read_value = read(f"key: {scalar}").data["key"]
    assert read_value == value
    assert type(read_value) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "empty"),
        ("# nothing\n", 1, "empty"),
        ("---\n", 1, "not empty"),
        ("- a\n- b", 1, "not a list"),
        ("only text", 1, "not text"),
        ("5", 1, "not a number"),
        ("a: 1\nb: &x [1]\nc: *x", 2, "anchors"),
        ("a: 1\nb: *x", 2, "anchors"),
        ("a: 1\nb: !!python/object:os.system x", 2, "tags"),
        ("a: 1\nb: !secret x", 2, "tags"),
        ("a: 1\n---\nb: 2", 2, "more than one document"),
        ("a: 1\nb: c: d", 2, "mapping values"),
        ("a: 1\nb: {x: ${{ y }}}", 2, "in quotes"),
        ("a: 1\n\tb: 2", 2, "tab character"),
        ("a: 1\nb: 'x", 2, "end of stream"),
        ("a: 1\n2: 3", 2, "keys must be texts"),
        ("a: 1\ntrue: 3", 2, "keys must be texts"),
        ("a: 1\n? [b]\n: 3", 2, "keys must be texts"),
        ("a: 1\nb: .nan", 2, "not a number that JSON knows"),
        ("a: 1\nb: -.inf", 2, "not a number that JSON knows"),
        ("a: 1\nb: 1e999", 2, "not a number that JSON knows"),
        ('a: 1\nb: "\\0"', 2, "NUL"),
        ("a: 1\nb: \0", 2, "NUL"),
        ("a: 1\nb: \x07", 2, "control characters"),
        ("a: 1\nb: " + "[" * 40 + "]" * 40, 2, "nested more than 32 levels"),
        (b"a: 1\nb: \xff", 2, "not UTF-8"),
        ("a: 1\nb: \ud800", 2, "not UTF-8"),
    ],
)
def test_yaml_that_is_refused_names_its_line(text: str | bytes, line: int, message: str) -> None:
    problem = refused(text)
    assert message in problem.message
    assert problem.line == line


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    problem = refused("\n".join(lines))
    assert (problem.path, problem.line) == ("a0", 1)
    assert "aliases (*) are not allowed" in problem.message


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "empty"),
        ("[]", 1, "not a list"),
        ("true", 1, "true or false"),
        ('{"a": 1,\n"b": }', 2, "not valid JSON: Expecting value (column 6)"),
        ('{"a": 1,\n"b": "\\ud800"}', 2, "surrogate"),
        ('{"a": 1,\n"b": ["\\u0000"]}', 2, "NUL"),
        ('{"a": 1,\n"b": {"\\u0000": 1}}', 2, "NUL"),
        ('{"a": 1,\n"b": ' + "[" * 40 + "]" * 40 + "}", 2, "nested more than 32 levels"),
        ("[" * 100_000, None, "nested more than 32 levels"),
        ('{"a": NaN}', None, "NaN is not a number"),
        ('{"a": 1e999}', None, "1e999 is not a number"),
        ('{"a": ' + "1" * 5000 + "}", None, "5000 digits"),
    ],
)
def test_json_that_is_refused_names_its_line(text: str, line: int | None, message: str) -> None:
    problem = refused(text, "json")
    assert message in problem.message
    assert problem.line == line


@pytest.mark.parametrize(
    ("media_type", "text"),
    [
        ("yaml", "a:\n  - x\n  - b: 1\n    c: 2\n    b: 3\n'an odd key': 1\n"),
        ("json", '{"a": [\n"x",\n{"b": 1,\n"c": 2,\n"b": 3}],\n"an odd key": 1}'),
    ],
)
def test_every_path_has_its_line_and_duplicates_are_problems(media_type: str, text: str) -> None:
    document = read(text, media_type)
    assert document.data["a"][0] == "x"
    assert document.line_of("a[0]") == 2
    assert document.line_of("a[1].c") == 4
    assert document.line_of('["an odd key"]') == 6
    assert document.line_of("a[1].c.what[3].is.not") == 4
    assert document.line_of("nowhere.at.all") == 1
    assert document.problems == [Problem("`b` stands twice, first in line 3", "a[1].b", 5)]


def test_a_byte_order_mark_is_no_problem() -> None:
    assert read(b"\xef\xbb\xbfa: 1").data == {"a": 1}


def test_a_large_text_is_refused_before_it_is_read() -> None:
    with pytest.raises(TooLargeError, match="4 MiB"):
        read("x" * (MAX_BYTES + 1))


@pytest.mark.parametrize(
    ("media_type", "text"),
    [("yaml", f"a:\n  ? {'k' * 1_001}\n  : 1\n"), ("json", f'{{"a": {{\n"{"k" * 1_001}": 1}}}}')],
)
def test_a_key_without_end_is_refused_with_its_place(media_type: str, text: str) -> None:
    problem = refused(text, media_type)
    assert (problem.path, problem.line) == ("a", 2)
    assert "1,001 characters; at most 1,000 are allowed" in problem.message
    assert read(text.replace("kk", "k", 1), media_type).data["a"] == {"k" * 1_000: 1}


@pytest.mark.parametrize(
    "key", ["plain", "two words", "a.b", "[0]", 'x"]', '["', '"].c["', "[.[.", ""]
)
def test_what_is_missing_below_a_key_has_the_line_of_the_key(key: str) -> None:
    document = read(json.dumps({"a": [0, {key: {"x": 1}}]}, indent=0), "json")
    there = below("a[1]", key)
    assert document.line_of(there) == 5
    assert document.line_of(f'{there}.y[7]["no such"].z') == 5


def test_the_parent_of_a_long_path_is_found_at_once() -> None:
    long = f'tasks["{"k" * 500_000}"]'
    started = time.thread_time()
    assert parent(f"{long}.capability") == long
    assert parent(long) == "tasks"
    assert time.thread_time() - started < 1
