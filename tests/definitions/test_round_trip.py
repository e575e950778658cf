"""What is written is read back equal, for every definition."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.flow import (
    JOINS,
    ON_CONFLICT,
    ON_ITEM_FAILURE,
    Catch,
    Concurrency,
    Flow,
    RateLimit,
    Repeat,
    Undo,
)
from tasks.retries import RetryPolicy
from workflows.definition import block_of, from_data, json_schema, parse
from workflows.spec import Block, Definition, TaskSpec

WORDS = st.sampled_from(["a", "b-c", "d_e", "end", "tasks", "T1", "null", "in", "y" * 40])
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0$"), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | PLAIN,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(PLAIN, inner, max_size=2),
    max_leaves=3,
)
MAPS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"a": 1}, {"": [None, {"b": 0.5}], "é ": "${{ run.id }}"}]
)
LABELS = st.lists(WORDS, max_size=2, unique=True).map(tuple)
SECONDS = st.floats(0.001, 9_999)
CODES = st.sampled_from(["true", "inputs.n > 1", "run.id != ''", "size(inputs.l) == 3"])
SCHEMAS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"type": "object", "properties": {"x": {}}}, {"enum": [1, "a"]}, {}]
)
RETRIES = st.just(RetryPolicy()) | st.builds(
    RetryPolicy,
    limit=st.integers(0, 9),
    initial_s=SECONDS,
    factor=st.floats(1, 9),
    max_s=SECONDS,
    jitter=st.sampled_from(["full", "none"]) | st.floats(0, 1),
    on=LABELS,
    unless=LABELS,
    deadline_s=st.none() | SECONDS,
)
CATCHES = st.builds(Catch, LABELS, LABELS, result=VALUES) | st.builds(
    Catch, LABELS, LABELS, WORDS, LABELS, MAPS
)
REPEATS = st.builds(
    Repeat, st.sampled_from(["", "iteration > 2"]), st.integers(1, 99), st.just(0.0) | SECONDS
)
LIMITS = st.builds(Concurrency, WORDS, st.integers(1, 9), st.sampled_from(ON_CONFLICT))
RATES = st.builds(RateLimit, WORDS, st.integers(1, 9), SECONDS)
ITEMS = st.lists(VALUES, max_size=3) | st.just("${{ inputs.l }}")


@st.composite
def flows(draw: st.DrawFn, *, is_agents: bool) -> Flow:
    over = draw(st.none() | ITEMS)
    return Flow(
        condition=draw(st.just("") | CODES),
        for_each=over,
        max_parallel=0 if over is None else draw(st.integers(0, 9)),
        on_item_failure=ON_ITEM_FAILURE[0]
        if over is None
        else draw(st.sampled_from(ON_ITEM_FAILURE)),
        repeat=draw(st.none() | REPEATS),
        catch=draw(st.none() | CATCHES),
        undo=draw(st.none() | st.builds(Undo, WORDS, LABELS, MAPS)),
        concurrency=draw(st.none() | LIMITS) if is_agents else None,
        rate_limit=draw(st.none() | RATES) if is_agents else None,
        queue_timeout_s=draw(st.none() | SECONDS) if is_agents else None,
        heartbeat_s=draw(st.none() | SECONDS) if is_agents else None,
    )


@st.composite
def kinds(draw: st.DrawFn, depth: int) -> dict[str, Any]:
    """Return what makes a task one of an agent, of the engine, or a block."""
    kind = draw(st.sampled_from(["agent", "agent", "wait", "workflow", "block"]))
    if kind == "agent" or (kind == "block" and depth == 0):
        agents = {"capability": draw(WORDS), "requires": draw(LABELS), "inputs": draw(MAPS)}
        return {**agents, "retry": draw(RETRIES), "flow": draw(flows(is_agents=True))}
    flow = draw(flows(is_agents=False))
    if kind == "wait":
        return {"uses": "wait", "inputs": {"duration": draw(SECONDS)}, "flow": flow}
    if kind == "workflow":
        return {"uses": f"workflow:{draw(WORDS)}", "retry": draw(RETRIES), "flow": flow}
    block = Block(draw(tasks(depth - 1)), draw(st.none() | MAPS))
    # Without inputs of its own: what is in it reads those of the workflow.
    return {"uses": "block", "block": block, "flow": flow}


@st.composite
def tasks(draw: st.DrawFn, depth: int = 1, unlike: tuple[str, ...] = ()) -> tuple[TaskSpec, ...]:
    keys = draw(
        st.lists(WORDS.filter(lambda word: word not in unlike), min_size=1, max_size=3, unique=True)
    )
    made = []
    for place, key in enumerate(keys):
        kind = draw(kinds(depth))
        needs = draw(st.lists(st.sampled_from(keys[:place]), unique=True)) if place else ()
        made.append(
            TaskSpec(
                key,
                needs=tuple(needs),
                timeout_s=draw(st.none() | SECONDS),
                priority=draw(st.none() | st.integers(0, 9)),
                outputs=None if kind.get("uses") == "block" else draw(st.none() | MAPS),
                description=draw(PLAIN),
                join=draw(st.sampled_from(JOINS)),
                returns=draw(st.none() | SCHEMAS),
                **kind,
            )
        )
    return tuple(made)


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    main = draw(tasks())
    return Definition(
        draw(WORDS),
        main,
        version=draw(st.just("") | WORDS),
        description=draw(PLAIN),
        inputs=draw(st.none() | st.just({"properties": {"l": {"type": "array"}, "n": {}}})),
        outputs=draw(st.none() | MAPS),
        priority=draw(st.none() | st.integers(0, 9)),
        fairness_key=draw(st.just("") | WORDS),
        concurrency=draw(st.none() | LIMITS),
        finally_=draw(st.just(()) | tasks(0, unlike=tuple(task.key for task in main))),
    )


VALIDATOR = jsonschema.Draft202012Validator(json_schema())


# A definition has many parts, so making one takes long on a busy machine.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(definitions())
def test_what_is_written_reads_back_equal(definition: Definition) -> None:
    written = definition.as_dict()
    assert parse(json.dumps(written), media_type="json") == definition
    assert from_data(written) == definition
    assert list(VALIDATOR.iter_errors(written)) == []
    for node in [*(vertex.node for vertex in definition.graph().vertices), *definition.epilogue()]:
        assert Flow.from_dict(json.loads(json.dumps(node.flow.as_dict()))) == node.flow
        assert RetryPolicy.from_dict(json.loads(json.dumps(node.retry.as_dict()))) == node.retry
        if node.uses == "block":
            assert node.flow.block is not None
            assert block_of(node.flow.block).as_dict() == node.flow.block
