"""A graph of tasks as a plain value: what to run and in which order."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from opscore.errors import InvalidError, Problem
from tasks.expressions import references, references_of
from tasks.flow import Flow
from tasks.retries import RetryPolicy

#: Key of the end node, which evaluates the outputs of a workflow; no user's key has a space.
END = "the end"


@dataclass(frozen=True, slots=True)
class Node:
    """One task of a graph, before it has a row."""

    key: str
    capability: str = ""
    requires: tuple[str, ...] = ()
    """Labels that the agent must have, all of them."""
    needs: tuple[str, ...] = ()
    """Keys of the tasks that must complete first."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """What the handler gets; expressions are evaluated when it is claimed."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout_s: float | None = None
    priority: int | None = None
    """0-9, 9 first; None: that of the run."""
    outputs: Mapping[str, Any] | None = None
    """Expressions over `result`, evaluated when the task completes."""
    uses: str = "agent"
    """The executor: agent, wait, signal, approval, block, workflow:<name>[@version]."""
    join: str = "all_success"
    """One of tasks.flow.JOINS."""
    flow: Flow = field(default_factory=Flow)

    @property
    def is_direct(self) -> bool:
        """Tell whether its work may be queued as soon as it is decided."""
        return self.uses in ("agent", "end") and not self.flow.is_limited

    @property
    def is_plain(self) -> bool:
        """Tell whether it may be queued as soon as all its needs have completed."""
        decided = self.flow.condition or self.flow.for_each is not None
        return self.is_direct and not decided and self.join == "all_success"


@dataclass(frozen=True, slots=True)
class Vertex:
    """A node with its place in the graph; every successor has a higher number."""

    number: int
    node: Node
    needs: tuple[int, ...]
    successors: tuple[int, ...]
    reads: tuple[int, ...]
    """Tasks whose results its expressions refer to."""
    is_sink: bool = True
    """Nothing but the run waits for its end: it has no successor, or only joins of kind `any`."""
    phase: str = "main"
    """`finally`: it starts when everything of `main` has ended."""


@dataclass(frozen=True, slots=True)
class Graph:
    """Vertices in topological order; `vertices[n].number == n`."""

    vertices: tuple[Vertex, ...]

    @classmethod
    def of(
        cls,
        nodes: Sequence[Node],
        outputs: Mapping[str, Any] | None = None,
        epilogue: Sequence[Node] = (),
    ) -> Graph:
        """Number the nodes topologically, with an end node when the graph has outputs.

        `epilogue` are the tasks of `finally`: they may need each other only.
        Raises InvalidError when a key stands twice, a need is unknown, or there is a cycle.
        """
        by_key = {node.key: node for node in (*nodes, *epilogue)}
        if len(by_key) != len(nodes) + len(epilogue):
            raise InvalidError("Two tasks of the graph have the same key.")
        if outputs:
            by_key[END] = _end_node(nodes, outputs)
        number = {key: place for place, key in enumerate(_ordered(by_key))}
        late = {node.key for node in epilogue}
        successors: list[list[int]] = [[] for _ in number]
        for key, node in by_key.items():
            for need in set(node.needs):
                successors[number[need]].append(number[key])
        waits = [by_key[key].join != "any" for key in number]
        return cls(
            tuple(
                Vertex(
                    number[key],
                    by_key[key],
                    tuple(sorted({number[need] for need in by_key[key].needs})),
                    tuple(sorted(successors[number[key]])),
                    _reads(by_key[key], number),
                    not any(waits[below] for below in successors[number[key]]),
                    "finally" if key in late else "main",
                )
                for key in number
            )
        )

    @property
    def sinks(self) -> int:
        """How many ends the run waits for before its epilogue."""
        return sum(vertex.is_sink and vertex.phase == "main" for vertex in self.vertices)

    @property
    def has_epilogue(self) -> bool:
        """Tell whether more may follow once all tasks have ended: `finally` or `undo`."""
        return any(vertex.phase == "finally" or vertex.node.flow.undo for vertex in self.vertices)


def _end_node(nodes: Sequence[Node], outputs: Mapping[str, Any]) -> Node:
    needed = {need for node in nodes for need in node.needs}
    sinks = tuple(node.key for node in nodes if node.key not in needed)
    # Branches that a condition skipped do not hinder the outputs.
    return Node(key=END, needs=sinks, inputs=dict(outputs), uses="end", join="none_failed")


def _ordered(by_key: Mapping[str, Node]) -> list[str]:
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for key, node in by_key.items():
        unknown = [need for need in node.needs if need not in by_key]
        if unknown:
            raise InvalidError(
                "The graph is not valid.",
                [Problem(f"needs an unknown task: {unknown[0]}", f"tasks.{key}.needs")],
            )
        sorter.add(key, *node.needs)
    try:
        return list(sorter.static_order())
    except graphlib.CycleError as error:
        # graphlib names the cycle against the arrows: each needs the one before it.
        cycle = " -> ".join(reversed(error.args[1]))
        problem = Problem(f"the tasks wait for each other: {cycle}", "tasks")
        raise InvalidError("The graph has a cycle.", [problem]) from None


def references_in(node: Node) -> frozenset[str]:
    """Return the keys of the tasks that any expression of a node reads."""
    flow = node.flow
    limits = [limit.key for limit in (flow.concurrency, flow.rate_limit) if limit]
    templates: list[Any] = [node.inputs, node.outputs or {}, flow.for_each, flow.sticky, *limits]
    if flow.catch:
        templates += [flow.catch.inputs, flow.catch.result]
    if flow.undo:
        templates.append(flow.undo.inputs)
    keys = references(templates)
    for bare in (flow.condition, flow.repeat.until if flow.repeat else ""):
        keys |= references_of(bare) if bare else frozenset()
    return keys


def _reads(node: Node, number: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sorted(number[key] for key in references_in(node) if key in number))


def single(node: Node) -> Graph:
    """Return the graph of one task on its own."""
    return Graph((Vertex(0, replace(node, needs=()), (), (), ()),))
