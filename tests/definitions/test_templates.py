"""Templates and defaults: written out when they are read, told where they stand when wrong."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.errors import InvalidError, Problem
from tasks.flow import Catch, Repeat
from tasks.retries import RetryPolicy
from workflows import catalogue
from workflows.definition import TaskSpec, from_data, parse
from workflows.templates import merged


def read(tasks: dict[str, Any], **top: Any) -> dict[str, TaskSpec]:
    return {task.key: task for task in from_data({"name": "x", "tasks": tasks, **top}).tasks}


def told(text: str) -> list[Problem]:
    with pytest.raises(InvalidError) as caught:
        parse(text)
    return list(caught.value.problems)


def test_a_task_has_what_its_template_says_and_more() -> None:
    templates = {
        "base": {"capability": "c", "timeout": 9, "with": {"a": {"x": 1, "y": 2}, "l": [1, 2]}},
    }
    own = {"extends": "base", "with": {"a": {"y": 3}, "l": [9], "b": 1}}
    task = read({"t": own}, templates=templates)["t"]
    assert (task.capability, task.timeout_s) == ("c", 9)
    assert task.inputs == {"a": {"x": 1, "y": 3}, "l": [9], "b": 1}


def test_templates_are_built_on_templates_and_the_later_wins() -> None:
    templates = {
        "one": {"retry": {"limit": 1, "backoff": {"initial": 5, "jitter": "none"}}, "priority": 1},
        "two": {"extends": "one", "retry": {"limit": 2}},
        "three": {"priority": 3, "description": "Not the task's."},
    }
    tasks = {
        "a": {"capability": "c", "extends": "two"},
        "b": {"capability": "c", "extends": ["two", "three"]},
        "c": {"capability": "c", "extends": ["three", "two"], "retry": 7},
        "d": {"capability": "c", "extends": "two", "retry": None, "priority": None},
    }
    made = read(tasks, templates=templates)
    assert made["a"].retry == RetryPolicy(limit=2, initial_s=5, jitter="none")
    assert (made["a"].priority, made["b"].priority, made["c"].priority) == (1, 3, 1)
    assert made["c"].retry == RetryPolicy(limit=7, initial_s=5, jitter="none")
    assert (made["d"].retry, made["d"].priority) == (RetryPolicy(), None)
    assert made["b"].description == ""


@pytest.mark.parametrize(
    ("low", "high", "both"),
    [
        ({"retry": {"limit": 1, "on": "a"}}, {"retry": 3}, {"retry": {"limit": 3, "on": "a"}}),
        ({"retry": 3}, {"retry": {"on": "a"}}, {"retry": {"limit": 3, "on": "a"}}),
        ({"timeout": "2m"}, {"timeout": {"queue": 1}}, {"timeout": {"run": "2m", "queue": 1}}),
        ({"repeat": {"delay": 1}}, {"repeat": 5}, {"repeat": {"delay": 1, "max": 5}}),
        ({"retry": 3}, {"retry": 4}, {"retry": 4}),
        ({"retry": {"limit": 3}}, {"retry": None}, {"retry": None}),
        ({"with": {"a": 1}}, {"with": "x"}, {"with": "x"}),
    ],
)
def test_short_forms_meet_long_ones(low: Any, high: Any, both: Any) -> None:
    assert merged(low, high) == both


MAPS = st.recursive(
    st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(*[st.dictionaries(st.sampled_from("abc"), MAPS, max_size=3)] * 3)
def test_merging_has_an_order_but_no_groups(one: Any, two: Any, three: Any) -> None:
    kept = json.dumps([one, two, three])
    assert merged(one, one) == one
    assert merged({}, one) == merged(one, {}) == one
    if not conflict(one, two) and not conflict(two, three) and not conflict(one, three):
        assert merged(merged(one, two), three) == merged(one, merged(two, three))
    assert json.dumps([one, two, three]) == kept


def conflict(one: Any, two: Any) -> bool:
    """Tell whether a map meets something else: then the order of merging counts."""
    if isinstance(one, dict) and isinstance(two, dict):
        return any(conflict(one[key], two[key]) for key in one.keys() & two.keys())
    return isinstance(one, dict) != isinstance(two, dict)


def test_defaults_are_for_those_who_do_not_say() -> None:
    defaults = {
        "retry": {"limit": 2, "on": "timeout"},
        "timeout": "5m",
        "priority": 2,
        "requires": "linux",
        "max_parallel": 4,
        "on_item_failure": "continue",
    }
    tasks = {
        "a": {"capability": "c"},
        "b": {"capability": "c", "retry": 5, "timeout": None, "requires": [], "for_each": [1]},
        "w": {"uses": "wait", "with": {"duration": 1}},
        "g": {"for_each": [1], "tasks": {"i": {"capability": "c"}}},
    }
    made = read(tasks, defaults=defaults)
    assert made["a"].retry == RetryPolicy(limit=2, on=("timeout",))
    assert (made["a"].timeout_s, made["a"].priority, made["a"].requires) == (300, 2, ("linux",))
    assert made["a"].flow.max_parallel == 0
    assert made["b"].retry == RetryPolicy(limit=5, on=("timeout",))
    assert (made["b"].timeout_s, made["b"].requires) == (None, ())
    assert (made["b"].flow.max_parallel, made["b"].flow.on_item_failure) == (4, "continue")
    assert made["w"] == read({"w": tasks["w"]})["w"]
    assert (made["g"].flow.max_parallel, made["g"].retry) == (4, RetryPolicy())
    assert made["g"].block is not None
    assert made["g"].block.tasks[0] == made["a"].__class__(
        "i", "c", retry=made["a"].retry, timeout_s=300, priority=2, requires=("linux",)
    )


def test_templates_win_over_defaults() -> None:
    templates = {"t": {"retry": 4}}
    tasks = {"a": {"extends": "t", "capability": "c"}}
    made = read(tasks, templates=templates, defaults={"retry": 1, "priority": 3})
    assert (made["a"].retry.limit, made["a"].priority) == (4, 3)


def test_what_is_kept_has_no_templates() -> None:
    data = {
        "name": "x",
        "defaults": {"retry": 1},
        "templates": {"t": {"depends_on": ["a"], "capability": "c"}},
        "tasks": {"a": {"capability": "c"}, "b": {"extends": "t"}},
        "finally": {"z": {"extends": "opscore/cleanup", "capability": "c"}},
    }
    definition = from_data(data)
    assert not definition.as_dict().keys() & {"defaults", "templates"}
    assert definition.as_dict()["tasks"]["b"]["needs"] == ["a"]
    assert definition.finally_[0].join == "all_done"
    assert from_data(definition.as_dict()) == definition


def test_a_template_may_be_a_block() -> None:
    templates = {"both": {"tasks": {"i": {"capability": "c"}}, "outputs": {"x": "${{ inputs.n }}"}}}
    made = read({"a": {"extends": "both", "with": {"n": 1}}}, templates=templates)
    assert made["a"].block is not None
    assert [task.key for task in made["a"].block.tasks] == ["i"]


WRONG = """\
name: x
templates:
  slow:
    retyr: 3
    with: {x: "${{ tasks.q.result }}"}
  careful:
    extends: slow
    timeout: soon
    depends_on: [nobody]
tasks:
  a: {capability: c, extends: careful}
  b: {capability: c, extends: careful, timeout: 1}
  c: {capability: c, extends: [careful]}
"""


def test_a_slip_in_a_template_is_told_once_with_its_line() -> None:
    problems = [(problem.line, problem.message.partition(";")[0]) for problem in told(WRONG)]
    assert problems == [
        (4, "unknown key `retyr`"),
        (5, "there is no task `q` (character 1 of `tasks.q.result`)"),
        (8, "'soon' is not a duration"),
        (9, "there is no task `nobody`"),
    ]


@pytest.mark.parametrize(
    ("templates", "task", "path", "message"),
    [
        ({"flaky": {}}, {"extends": "flakey"}, "tasks.t.extends", "did you mean `flaky`?"),
        ({}, {"extends": "opscore/lmm"}, "tasks.t.extends", "did you mean `opscore/llm`?"),
        ({}, {"extends": ["opscore/llm", 3]}, "tasks.t.extends[1]", "must be the name"),
        ({}, {"extends": ["opscore/llm"] * 17}, "tasks.t.extends", "at most 16 templates"),
        ({"a": {"extends": "b"}, "b": {"extends": "a"}}, {}, "", "extend each other: a -> b -> a"),
        ({"a": {"extends": "a"}}, {}, "templates.a.extends", "extend each other: a -> a"),
        ({"a": 5}, {}, "templates.a", "a template is a map, not a number"),
        ({"a b": {}}, {}, 'templates["a b"]', "is not valid"),
        ({"a": {"retry": {"limit": "x"}}}, {}, "templates.a.retry.limit", "whole number"),
        ({"a": {"nedds": "x"}}, {}, "templates.a.nedds", "did you mean `needs`?"),
        ({"a": {"needs": [], "depends_on": []}}, {}, "templates.a.depends_on", "say it once"),
    ],
)
def test_a_wrong_template_is_told(templates: Any, task: Any, path: str, message: str) -> None:
    data = {"name": "x", "templates": templates, "tasks": {"t": {"capability": "c", **task}}}
    (problem,) = told(json.dumps(data, indent=1))
    assert problem.path == path or not path
    assert message in problem.message
    assert problem.line is not None


@pytest.mark.parametrize(
    ("defaults", "path", "message"),
    [
        ({"retry": -1}, "defaults.retry", "from 0 to 1000"),
        ({"capability": "c"}, "defaults.capability", "unknown key"),
        ([], "defaults", "must be a map"),
    ],
)
def test_wrong_defaults_are_told_once(defaults: Any, path: str, message: str) -> None:
    tasks = {key: {"capability": "c"} for key in "abc"}
    problems = told(json.dumps({"name": "x", "defaults": defaults, "tasks": tasks}))
    assert [problem.path for problem in problems] == [path]
    assert message in problems[0].message


def test_templates_cannot_grow_without_end() -> None:
    started = time.thread_time()
    inner = {f"i{number}": {"extends": "t"} for number in range(60)}
    data = {"name": "x", "templates": {"t": {"tasks": inner}}, "tasks": {"a": {"extends": "t"}}}
    assert any("at most 10000 are allowed" in problem.message for problem in told(json.dumps(data)))
    large = {"with": {"text": "x" * 100_000}, "capability": "c"}
    tasks = {f"t{number}": {"extends": "t"} for number in range(500)}
    data = {"name": "x", "templates": {"t": large}, "tasks": tasks}
    assert any("larger than 16 MB" in problem.message for problem in told(json.dumps(data)))
    deep = {f"t{n}": {"extends": f"t{n + 1}"} for n in range(900)} | {"t900": {}}
    data = {"name": "x", "templates": deep, "tasks": {"a": {"capability": "c", "extends": "t0"}}}
    assert any("more than 16 templates" in problem.message for problem in told(json.dumps(data)))
    assert time.thread_time() - started < 20


# ------------------------------------------------------------ the catalogue
COMPLETE: dict[str, dict[str, Any]] = {
    "opscore/batch": {"for_each": [1]},
    "opscore/poll": {"repeat": {"until": "result.done"}},
    "opscore/human-approval": {"capability": None, "with": {"message": "Go?"}},
}


@pytest.mark.parametrize("name", sorted(catalogue.shipped()))
def test_every_shipped_template_makes_a_good_task(name: str) -> None:
    task = {"capability": "c", "extends": name, **COMPLETE.get(name, {})}
    made = from_data({"name": "x", "tasks": {"t": task}})
    plain = TaskSpec("t", "c")
    assert made.tasks[0] != plain
    assert from_data(made.as_dict()) == made


def test_shipped_templates_say_what_their_names_promise() -> None:
    made = read(
        {
            "e": {"capability": "c", "extends": "opscore/best-effort"},
            "p": {"capability": "c", "extends": "opscore/poll", **COMPLETE["opscore/poll"]},
            "h": {"extends": "opscore/human-approval", "with": {"role": "admin"}},
            "x": {"capability": "c", "extends": "opscore/exclusive"},
        }
    )
    assert made["e"].flow.catch == Catch()
    assert made["p"].flow.repeat == Repeat(until="result.done", max=360, delay_s=10)
    assert made["h"].uses == "approval"
    assert made["h"].inputs == {"role": "admin", "expires": 259200.0, "on_expiry": "reject"}
    assert made["x"].flow.concurrency is not None
    assert (made["x"].flow.concurrency.key, made["x"].flow.concurrency.limit) == ("x.x", 1)


def test_the_page_lists_the_catalogue() -> None:
    page = (Path(__file__).parents[2] / "docs" / "language.md").read_text()
    for name, about in catalogue.descriptions().items():
        assert f"| `{name}` | {about} |" in page
