"""Every construct of the language: what it becomes, and what is told when it is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from opscore.errors import InvalidError
from tasks.flow import Catch, Concurrency, Flow, RateLimit, Repeat, Undo
from tasks.retries import RetryPolicy
from workflows.definition import TaskSpec, from_data, parse


def problems_of(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (path, message); a definition without problems has none."""
    try:
        from_data({"name": "x", **data})
    except InvalidError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


def task(**entry: Any) -> TaskSpec:
    """Return the one task of a definition."""
    return from_data({"name": "x", "tasks": {"t": {"capability": "c", **entry}}}).tasks[0]


def engine(uses: str, **entry: Any) -> dict[str, Any]:
    return {"tasks": {"t": {"uses": uses, **entry}}}


# ------------------------------------------------------------ what becomes of it
@pytest.mark.parametrize(
    ("entry", "flow"),
    [
        ({"if": "inputs.n > 1"}, Flow(condition="inputs.n > 1")),
        ({"if": " ${{ inputs.n > 1 }}\n"}, Flow(condition="inputs.n > 1")),
        ({"when": True}, Flow(condition="true")),
        ({"if": False}, Flow(condition="false")),
        ({"for_each": [1, "${{ inputs.n }}"]}, Flow(for_each=[1, "${{ inputs.n }}"])),
        ({"for_each": []}, Flow(for_each=[])),
        (
            {"for_each": "${{ inputs.l }}", "max_parallel": 3, "on_item_failure": "continue"},
            Flow(for_each="${{ inputs.l }}", max_parallel=3, on_item_failure="continue"),
        ),
        ({"prefers": "gpu"}, Flow(prefers={"gpu": 1})),
        ({"prefers": {"gpu": 10, "spot": -5}}, Flow(prefers={"gpu": 10, "spot": -5})),
        ({"sticky": "${{ inputs.repo }}"}, Flow(sticky="${{ inputs.repo }}")),
        ({"repeat": 5}, Flow(repeat=Repeat(max=5))),
        (
            {"repeat": {"until": "${{ result.done }}", "delay": "2s"}},
            Flow(repeat=Repeat(until="result.done", delay_s=2)),
        ),
        ({"repeat": {"max": 3, "delay": 0}}, Flow(repeat=Repeat(max=3))),
        ({"catch": {}}, Flow(catch=Catch())),
        (
            {"catch": {"on": "a*", "unless": ["ab"], "result": {"e": "${{ error.type }}"}}},
            Flow(catch=Catch(on=("a*",), unless=("ab",), result={"e": "${{ error.type }}"})),
        ),
        (
            {"catch": {"capability": "d", "requires": "gpu", "with": {"x": 1}}},
            Flow(catch=Catch(capability="d", requires=("gpu",), inputs={"x": 1})),
        ),
        (
            {"undo": {"capability": "u", "with": {"r": "${{ result }}"}}},
            Flow(undo=Undo(capability="u", inputs={"r": "${{ result }}"})),
        ),
        ({"concurrency": 3}, Flow(concurrency=Concurrency(key="x.t", limit=3))),
        (
            {"concurrency": {"key": "k-${{ inputs.n }}", "on_conflict": "reject"}},
            Flow(concurrency=Concurrency(key="k-${{ inputs.n }}", on_conflict="reject")),
        ),
        (
            {"rate_limit": {"limit": 9, "per": "1m"}},
            Flow(rate_limit=RateLimit(key="x.t", limit=9, per_s=60)),
        ),
        ({"timeout": {"queue": "1m", "heartbeat": 5}}, Flow(queue_timeout_s=60, heartbeat_s=5)),
    ],
)
def test_a_key_becomes_a_part_of_the_flow(entry: dict[str, Any], flow: Flow) -> None:
    read = task(**entry)
    assert read.flow == flow
    node = read.node()
    assert node.flow == flow
    assert Flow.from_dict(json.loads(json.dumps(flow.as_dict()))) == flow
    again = from_data({"name": "x", "tasks": {"t": read.as_dict()}}).tasks[0]
    assert again == read


@pytest.mark.parametrize(
    ("retry", "policy"),
    [
        (3, RetryPolicy(limit=3)),
        ({"limit": 2, "initial": "1m", "max": 90}, RetryPolicy(limit=2, initial_s=60, max_s=90)),
        (
            {
                "limit": 2,
                "backoff": {"initial": 2, "factor": 3, "max": "1m", "jitter": 0.5},
                "on": ["timeout", "http_*"],
                "unless": "http_404",
                "deadline": "30m",
            },
            RetryPolicy(2, 2, 3, 60, 0.5, ("timeout", "http_*"), ("http_404",), 1800),
        ),
        ({"limit": 1, "backoff": {"jitter": "none"}}, RetryPolicy(limit=1, jitter="none")),
    ],
)
def test_retry_has_a_short_and_a_long_form(retry: Any, policy: RetryPolicy) -> None:
    read = task(retry=retry)
    assert read.retry == policy
    assert read.node().retry == policy
    written = read.as_dict()["retry"]
    assert written["limit"] == policy.limit
    assert written["backoff"]["initial"] == policy.initial_s
    assert not written.keys() & {"initial", "factor", "max"}


def test_timeout_is_written_as_short_as_it_can_be() -> None:
    assert task(timeout="2m").as_dict()["timeout"] == 120
    assert task(timeout={"run": 9}).as_dict()["timeout"] == 9
    limits = {"queue": 3600.0, "run": 9.0}
    assert task(timeout={"queue": "1h", "run": 9}).as_dict()["timeout"] == limits


@pytest.mark.parametrize("word", ["needs", "depends_on", "dependencies"])
def test_needs_has_other_words_and_is_written_as_needs(word: str) -> None:
    tasks = {"a": {"capability": "c"}, "b": {"capability": "c", word: "a"}}
    read = from_data({"name": "x", "tasks": tasks})
    assert read.tasks[1].needs == ("a",)
    assert read.as_dict()["tasks"]["b"] == {"capability": "c", "needs": ["a"]}


def test_a_wrong_need_is_told_in_the_words_of_its_author() -> None:
    text = "name: x\ntasks:\n  t:\n    capability: c\n    depends_on:\n      - q\n"
    with pytest.raises(InvalidError) as caught:
        parse(text)
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == ("tasks.t.depends_on[0]", 6)


@pytest.mark.parametrize(
    ("uses", "given", "inputs"),
    [
        ("wait", {"duration": "10m"}, {"duration": 600.0}),
        ("wait", {"duration": "${{ inputs.n }}"}, {"duration": "${{ inputs.n }}"}),
        ("wait", {"until": "2030-01-31T09:00:00Z"}, {"until": "2030-01-31T09:00:00Z"}),
        ("signal", {}, {"name": "t"}),
        ("signal", {"name": "go-${{ inputs.n }}"}, {"name": "go-${{ inputs.n }}"}),
        ("approval", {}, {}),
        (
            "approval",
            {"message": "Go?", "role": "operator", "expires": "2d", "on_expiry": "approve"},
            {"message": "Go?", "role": "operator", "expires": 172800.0, "on_expiry": "approve"},
        ),
        ("workflow:review", {"a": 1}, {"a": 1}),
        ("workflow:review@1.2-rc", {}, {}),
    ],
)
def test_the_engines_own_executors_take_their_with(
    uses: str, given: dict[str, Any], inputs: dict[str, Any]
) -> None:
    read = from_data({"name": "x", **engine(uses, **{"with": given}, timeout=60)})
    node = read.tasks[0].node()
    assert (node.uses, node.capability, node.inputs) == (uses, "", inputs)
    assert node.timeout_s == 60
    assert from_data(read.as_dict()) == read


def test_a_workflow_has_a_limit_of_its_own() -> None:
    tasks = {"a": {"capability": "c"}}
    read = from_data({"name": "x", "tasks": tasks, "concurrency": {"limit": 2}})
    assert read.concurrency == Concurrency(key="x", limit=2)
    assert from_data(read.as_dict()) == read


def test_what_is_asked_of_agents_is_found_everywhere() -> None:
    inner = {"capability": "d", "undo": {"capability": "u"}}
    tasks = {
        "a": {"capability": "c", "requires": "gpu", "catch": {"capability": "e"}},
        "b": {"tasks": {"i": inner}},
    }
    read = from_data({"name": "x", "tasks": tasks, "finally": {"z": {"capability": "f"}}})
    assert [(each.path, each.capability) for each in read.demands()] == [
        ("tasks.a.capability", "c"),
        ("tasks.a.catch.capability", "e"),
        ("tasks.b.tasks.i.capability", "d"),
        ("tasks.b.tasks.i.undo.capability", "u"),
        ("finally.z.capability", "f"),
    ]


# ------------------------------------------------------------ what is told
@pytest.mark.parametrize(
    ("entry", "place", "message"),
    [
        ({"join": "all"}, ".join", "must be all_success, none_failed, all_done or any"),
        ({"needs": [], "depends_on": []}, ".depends_on", "`depends_on` is another word for `needs`"),
        ({"if": "true", "when": "true"}, ".when", "say it once"),
        ({"if": ""}, ".if", "the expression is empty"),
        ({"if": 3}, ".if", "must be an expression, not a number"),
        ({"if": "inputs.n >"}, ".if", "ends too early"),
        ({"when": "inputs.n >"}, ".when", "ends too early"),
        ({"if": "${{ inputs.n }} > 1"}, ".if", "nothing outside its `${{ }}`"),
        ({"if": "${{ inputs.n"}, ".if", "is not closed"),
        ({"if": "${{ '${{' == '' }}"}, ".if", "cannot hold another"),
        ({"if": "tasks.q.result"}, ".if", "there is no task `q`"),
        ({"if": "item.x"}, ".if", "`item` is known only in a task with `for_each`"),
        ({"for_each": [], "if": "item.x"}, ".if", "once its items are known"),
        ({"for_each": "inputs.l"}, ".for_each", "must be a list, or an expression"),
        ({"for_each": {"a": 1}}, ".for_each", "must be a list"),
        ({"for_each": "x ${{ inputs.l }}"}, ".for_each", "nothing outside"),
        ({"for_each": list(range(10_001))}, ".for_each", "at most 10000"),
        ({"for_each": ["${{ item }}"]}, ".for_each[0]", "`item` is known only"),
        ({"max_parallel": 3}, ".max_parallel", "belongs to `for_each`"),
        ({"for_each": [], "max_parallel": 0}, ".max_parallel", "from 1 to 10000"),
        ({"for_each": [], "on_item_failure": "x"}, ".on_item_failure", "must be fail_fast"),
        ({"repeat": {}}, ".repeat", "needs `until`, `max`, or both"),
        ({"repeat": 0}, ".repeat", "from 1 to 10000"),
        ({"repeat": {"until": "1"}}, ".repeat.until", "must be true or false"),
        ({"with": {"x": "${{ previous }}"}}, ".with.x", "`previous` is known only in"),
        ({"for_each": [1], "outputs": {"x": "${{ item }}"}}, ".outputs.x", "`item` is known only"),
        ({"repeat": {"max": 2, "delay": -1}}, ".repeat.delay", "above zero"),
        ({"with": {"x": "${{ iteration }}"}}, ".with.x", "`iteration` is known only in"),
        ({"with": {"x": "${{ result }}"}}, ".with.x", "`result` is known only in"),
        ({"with": {"x": "${{ error.type }}"}}, ".with.x", "`error` is known only in `catch`"),
        ({"retry": {"on": ["timeout"]}}, ".retry", "needs a `limit`"),
        ({"retry": {"limit": 1, "on": "a*b"}}, ".retry.on", "`*` only at its end"),
        ({"retry": {"limit": 1, "on": ["a", "b c"]}}, ".retry.on[1]", "one word"),
        ({"retry": {"limit": 1, "backoff": {"jitter": 2}}}, ".retry.backoff.jitter", "from 0 to 1"),
        ({"retry": {"limit": 1, "backoff": {"jitter": "no"}}}, ".retry.backoff.jitter", "full, none"),
        ({"retry": {"limit": 1, "backoff": 5}}, ".retry.backoff", "must be a map"),
        ({"retry": {"limit": 1, "max": 1, "backoff": {"max": 2}}}, ".retry", "not in both"),
        ({"retry": {"limit": 1, "deadline": "x"}}, ".retry.deadline", "not a duration"),
        ({"timeout": {"rn": 5}}, ".timeout.rn", "did you mean `run`?"),
        ({"timeout": {"queue": 0}}, ".timeout.queue", "above zero"),
        ({"catch": []}, ".catch", "must be a map"),
        ({"catch": {"capability": "c", "result": 1}}, ".catch", "say `capability` or `result`"),
        ({"catch": {"with": {}}}, ".catch", "belong to a `capability`"),
        ({"catch": {"result": "${{ result }}"}}, ".catch.result", "`result` is known only"),
        ({"undo": {}}, ".undo", "needs a `capability`"),
        ({"undo": {"capability": "u", "result": 1}}, ".undo.result", "unknown key"),
        ({"concurrency": 0}, ".concurrency", "from 1 to"),
        ({"concurrency": {"key": 5}}, ".concurrency.key", "must be text"),
        ({"concurrency": {"on_conflict": "q"}}, ".concurrency.on_conflict", "queue, reject or"),
        ({"rate_limit": {"per": 1}}, ".rate_limit", "needs a `limit`"),
        ({"rate_limit": 5}, ".rate_limit", "must be a map"),
        ({"returns": {"type": "strin"}}, ".returns.type", "'strin' is not valid"),
        ({"returns": {"$ref": "http://x"}}, '.returns["$ref"]', "own `$defs`"),
        ({"uses": "approvel", "capability": None}, ".uses", "did you mean `approval`?"),
        ({"uses": "workflow:a b", "capability": None}, ".uses", "a name has letters"),
        ({"uses": "workflow:a@", "capability": None}, ".uses", "a version has letters"),
        ({"uses": "wait", "with": {"duration": 1}}, ".capability", "is nothing for a wait"),
        ({"extends": "nobody"}, ".extends", "there is no template `nobody`"),
    ],
)  # fmt: skip
def test_a_wrong_entry_of_a_task_is_told(entry: dict[str, Any], place: str, message: str) -> None:
    ((path, told),) = problems_of({"tasks": {"t": {"capability": "c", **entry}}})
    assert path == f"tasks.t{place}"
    assert message in told


@pytest.mark.parametrize(
    ("uses", "entry", "place", "message"),
    [
        ("wait", {}, ".with", "`wait` takes"),
        ("wait", {"with": {"duration": 1, "until": "2030-01-01T00:00:00Z"}}, ".with", "`wait` takes"),
        ("wait", {"with": {"duration": "soon"}}, ".with.duration", "not a duration"),
        ("wait", {"with": {"until": "tomorrow"}}, ".with.until", "write it with its zone"),
        ("wait", {"with": {"until": "2030-02-31T00:00:00Z"}}, ".with.until", "is not a time"),
        ("wait", {"with": {"until": "2030-01-01T00:00:00"}}, ".with.until", "is not a time"),
        ("wait", {"with": {"duration": 1, "x": 2}}, ".with.x", "unknown key `x`"),
        ("wait", {"with": {"duration": 1}, "retry": 3}, ".retry", "is nothing for a wait"),
        ("wait", {"with": {"duration": 1}, "requires": "x"}, ".requires", "is nothing for a wait"),
        ("signal", {"with": {"name": 5}}, ".with.name", "must be text"),
        ("signal", {"timeout": {"queue": 1}}, ".timeout.queue", "is nothing for a signal"),
        ("approval", {"with": {"on_expiry": "reject"}}, ".with", "belongs to `expires`"),
        ("approval", {"with": {"on_expiry": "x", "expires": 1}}, ".with.on_expiry", "approve, reject"),
        ("approval", {"with": {"role": "a b"}}, ".with.role", "one word"),
        ("workflow:w", {"timeout": {"heartbeat": 1}}, ".timeout.heartbeat", "nothing for a workflow"),
    ],
)  # fmt: skip
def test_a_wrong_entry_of_the_engines_own_is_told(
    uses: str, entry: dict[str, Any], place: str, message: str
) -> None:
    ((path, told),) = problems_of(engine(uses, **entry))
    assert path == f"tasks.t{place}"
    assert message in told


@pytest.mark.parametrize(
    ("entry", "path", "message"),
    [
        ({"prefers": {"gpu": 101}}, "prefers.gpu", "a whole number from -100 to 100"),
        ({"prefers": {"gpu": True}}, "prefers.gpu", "a whole number"),
        ({"prefers": {"a b": 1}}, "prefers.a b", "one word"),
        ({"prefers": ["x", "a b"]}, "prefers[1]", "one word"),
        ({"prefers": {f"l{n}": 1 for n in range(21)}}, "prefers", "at most 20"),
        ({"sticky": " "}, "sticky", "must not be empty"),
        ({"sticky": 5}, "sticky", "must be text"),
        ({"sticky": "${{ inputs.x + }}"}, "sticky", ""),
        ({"sticky": "${{ tasks.later.result }}"}, "sticky", "later"),
    ],
)
def test_wrong_wishes_are_told_with_their_place(
    entry: dict[str, Any], path: str, message: str
) -> None:
    problems = problems_of({"tasks": {"t": {"capability": "c", **entry}}})
    assert [place for place, _ in problems] == [f"tasks.t.{path}"]
    assert message in problems[0][1]


def test_only_tasks_of_agents_have_wishes() -> None:
    wait = {"uses": "wait", "with": {"duration": "1s"}}
    problems = problems_of({"tasks": {"t": {**wait, "prefers": ["gpu"], "sticky": "k"}}})
    assert {place for place, _ in problems} == {"tasks.t.prefers", "tasks.t.sticky"}


def test_item_and_defaults_may_be_used_for_wishes() -> None:
    data = {
        "defaults": {"prefers": {"gpu": 2}},
        "tasks": {
            "t": {"capability": "c", "for_each": [1], "sticky": "${{ item }}"},
            "own": {"capability": "c", "prefers": ["eu"]},
        },
    }
    found = from_data({"name": "x", **data}).tasks
    assert [one.flow.prefers["gpu"] for one in found[:1]] == [2]
    assert "gpu" not in found[1].flow.prefers or found[1].flow.prefers == {"gpu": 2, "eu": 1}
