"""The canvas compiler, on 5,000 random graphs: what it sends is what the graph says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from kombu import Connection

from opscore.ids import uuid7
from tasks.canvas import compile_plan
from tasks.graph import Graph
from tasks.segments import MAX_CHAIN, MAX_CHORD, Chord, Planner, Segment, Spot
from tasks.topology import Address
from tests.engine.dags import chain, diamond, random_graph, series_parallel

Then = Callable[[], None]


def spots_of(graph: Graph) -> dict[int, Spot]:
    return {
        vertex.number: Spot(vertex.number, len(vertex.needs), vertex.successors)
        for vertex in graph.vertices
    }


def addresses_of(graph: Graph) -> dict[int, Address]:
    return {vertex.number: Address(uuid7(), 1, "default.work", 5) for vertex in graph.vertices}


@dataclass
class Broker:
    """Executes canvases in memory, in any order that Celery could choose."""

    graph: Graph
    rng: Random
    chords: bool = True
    addresses: dict[int, Address] = field(default_factory=dict)
    waiting: list[tuple[int, frozenset[int], Then]] = field(default_factory=list)
    delivered: list[int] = field(default_factory=list)

    def run(self) -> list[int]:
        self.addresses = addresses_of(self.graph)
        self.number = {address.id: number for number, address in self.addresses.items()}
        self.pending = {vertex.number: len(vertex.needs) for vertex in self.graph.vertices}
        self.advance([number for number, count in self.pending.items() if count == 0])
        while self.waiting:
            self._deliver(*self.waiting.pop(self.rng.randrange(len(self.waiting))))
        return self.delivered

    def advance(self, ready: list[int]) -> None:
        planner = Planner(spots_of(self.graph), chords=self.chords)
        for canvas in compile_plan(planner.plan(ready), self.addresses.__getitem__):
            self._start(canvas, lambda: None)

    def _start(self, canvas: Mapping[str, Any], then: Then) -> None:
        match canvas["task"]:
            case "celery.chain":
                self._chain(list(canvas["kwargs"]["tasks"]), then)
            case "celery.group":
                for part in canvas["kwargs"]["tasks"]:
                    self._start(part, lambda: None)
            case "celery.chord":
                self._chord(canvas["kwargs"]["header"], canvas["kwargs"]["body"], then)
            case _:
                task_id, _, carry = canvas["args"]
                assert canvas["options"]["task_id"] == task_id
                self.waiting.append((self.number[UUID(task_id)], frozenset(carry), then))

    def _chain(self, parts: list[Mapping[str, Any]], then: Then) -> None:
        head, rest = parts[0], parts[1:]
        if head["task"] == "celery.group":
            assert not rest, "a group may only end a chain"
        self._start(head, (lambda: self._chain(rest, then)) if rest else then)

    def _chord(self, header: Any, body: Mapping[str, Any], then: Then) -> None:
        parts = header["kwargs"]["tasks"] if isinstance(header, Mapping) else header
        first = body["kwargs"]["tasks"][0] if body["task"] == "celery.chain" else body
        assert first["task"] == "tasks.run_task", "a chord's body starts with a single task"
        left = [len(parts)]

        def one_less() -> None:
            left[0] -= 1
            if not left[0]:
                self._start(body, then)

        for part in parts:
            self._start(part, one_less)

    def _deliver(self, number: int, carry: frozenset[int], then: Then) -> None:
        assert self.pending[number] == 0, "delivered before its dependencies"
        self.delivered.append(number)
        released = []
        for successor in self.graph.vertices[number].successors:
            self.pending[successor] -= 1
            if not self.pending[successor]:
                released.append(successor)
        self.advance([number for number in released if number not in carry])
        then()


def sample(seed: int) -> Graph:
    rng = Random(seed)
    if seed % 2:
        return random_graph(rng, rng.randint(1, 40), rng.choice((0.05, 0.15, 0.4)))
    return series_parallel(rng, rng.randint(1, 8))


@pytest.mark.parametrize("block", range(10))
def test_every_edge_is_respected_and_every_task_delivered_once(block: int) -> None:
    for seed in range(block * 500, (block + 1) * 500):
        graph = sample(seed)
        delivered = Broker(graph, Random(seed), chords=seed % 5 > 0).run()
        assert Counter(delivered) == Counter(range(len(graph.vertices))), f"seed {seed}"


GROUPS = {"celery.group", "celery.chord"}


def parts_of(canvas: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    kwargs = canvas["kwargs"]
    match canvas["task"]:
        case "celery.chain" | "celery.group":
            return list(kwargs["tasks"])
        case "celery.chord":
            header = kwargs["header"]
            inner = header["kwargs"]["tasks"] if isinstance(header, Mapping) else header
            return [*inner, kwargs["body"]]
        case _:
            return []


def assert_no_adjacent_groups(canvas: Mapping[str, Any]) -> None:
    parts = parts_of(canvas)
    kinds = [part["task"] for part in parts]
    if canvas["task"] == "celery.chain":
        assert not any({one, two} <= GROUPS for one, two in pairwise(kinds))
    if canvas["task"] in GROUPS:
        assert not GROUPS & set(kinds)
    for part in parts:
        assert_no_adjacent_groups(part)


def test_no_group_stands_behind_a_group() -> None:
    for seed in range(1000):
        graph = sample(seed)
        ready = [vertex.number for vertex in graph.vertices if not vertex.needs]
        plan = Planner(spots_of(graph)).plan(ready)
        for canvas in compile_plan(plan, addresses_of(graph).__getitem__):
            assert_no_adjacent_groups(canvas)


@pytest.fixture(scope="module")
def memory_app() -> Celery:
    app = Celery(
        "sizes", broker="memory://", backend="cache+memory://", fixups=[], set_as_current=False
    )
    app.conf.update(task_serializer="json", task_ignore_result=True)
    return app


def first_messages(app: Celery, graph: Graph) -> list[int]:
    """Send the canvases of a graph's ready tasks and return the bytes of each message."""
    ready = [vertex.number for vertex in graph.vertices if not vertex.needs]
    sizes = []
    with Connection("memory://") as connection:
        queue = connection.SimpleQueue("default.work")
        for canvas in compile_plan(
            Planner(spots_of(graph)).plan(ready), addresses_of(graph).__getitem__
        ):
            vars(canvas)["_app"] = app
            with app.producer_pool.acquire(block=True) as producer:
                canvas.apply_async(producer=producer)
        while queue.qsize():
            message = queue.get(block=False)
            sizes.append(len(message.body or "") + len(json.dumps(message.headers)))
            message.ack()
    return sizes


def test_no_message_is_larger_than_16_kb(memory_app: Celery) -> None:
    shapes = [sample(seed) for seed in range(0, 600, 3)]
    shapes += [chain(40), diamond(5), diamond(20), diamond(150), diamond(400)]
    largest = max(size for graph in shapes for size in first_messages(memory_app, graph))
    assert 1_000 < largest <= 16 * 1024


def test_a_fork_that_meets_again_is_one_real_chord() -> None:
    plan = Planner(spots_of(diamond(5))).plan([0])
    canvas = next(iter(compile_plan(plan, addresses_of(diamond(5)).__getitem__)))
    assert [part["task"] for part in canvas["kwargs"]["tasks"]] == [
        "tasks.run_task",
        "celery.chord",
    ]


def test_chords_can_be_switched_off() -> None:
    graph = diamond(5)
    planner = Planner(spots_of(graph), chords=False)
    text = json.dumps(list(compile_plan(planner.plan([0]), addresses_of(graph).__getitem__)))
    assert "celery.chord" not in text
    assert "celery.group" in text


def test_a_chain_longer_than_the_limit_is_cut() -> None:
    plan = Planner(spots_of(chain(40))).plan([0])
    assert [len(list(numbers(part))) for part in plan if not hasattr(part, "header")] == [MAX_CHAIN]


def test_a_chord_wider_than_the_limit_becomes_a_group() -> None:
    graph = diamond(MAX_CHORD + 1)
    heads = list(range(1, MAX_CHORD + 2))
    assert len(Planner(spots_of(graph)).plan(heads)) == MAX_CHORD + 1
    assert len(Planner(spots_of(diamond(MAX_CHORD))).plan(heads[:-1])) == 1


def test_tasks_that_no_worker_takes_are_not_carried() -> None:
    planner = Planner(spots_of(chain(3)), deliverable=lambda number: number != 1)
    assert [list(numbers(part)) for part in planner.plan([0]) if not hasattr(part, "header")] == [
        [0]
    ]


def numbers(segment: Segment) -> Iterator[int]:
    """Yield every task that a segment delivers, in order."""
    yield from segment.run
    tail = segment.tail
    for branch in (*tail.header, tail.body) if isinstance(tail, Chord) else tail:
        yield from numbers(branch)
