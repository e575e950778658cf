"""Starts one of the test graphs and prints the run's id: python -m tests.real.submit JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from random import Random
from typing import Any

import django


def main(order: dict[str, Any]) -> None:
    """Start the graph that the order names."""
    django.setup()
    from opscore.models import Project
    from tasks.graph import Graph, Node
    from tasks.retries import RetryPolicy
    from tasks.submission import start_run
    from tests.engine.dags import chain, diamond, random_graph

    soon = RetryPolicy(limit=3, initial_s=0.1, max_s=0.2)
    shapes = {
        "chain": lambda: chain(15),
        "short chain": lambda: chain(4),
        "diamond": lambda: diamond(6),
        "irregular": lambda: random_graph(Random(7), 30, 0.2),
        "flaky": lambda: Graph.of(
            [
                Node(key="a", capability="work"),
                Node(
                    key="b", capability="flaky", needs=("a",), inputs={"succeed_at": 3}, retry=soon
                ),
                Node(key="x", capability="work", needs=("a",)),
                Node(key="join", capability="work", needs=("b", "x")),
            ]
        ),
        "failing": lambda: Graph.of(
            [
                Node(key="a", capability="work"),
                Node(key="b", capability="flaky", needs=("a",), inputs={"succeed_at": 9}),
                Node(key="c", capability="work", needs=("b",)),
            ]
        ),
        "poison": lambda: Graph.of([Node(key="p", capability="poison")]),
        "forever": lambda: Graph.of([Node(key="f", capability="forever", timeout_s=1.0)]),
    }
    common = {name: order[name] for name in ("record", "gate") if order.get(name)}
    graph = shapes[order["shape"]]()
    vertices = tuple(
        replace(vertex, node=replace(vertex.node, inputs={**vertex.node.inputs, **common}))
        for vertex in graph.vertices
    )
    project = Project.objects.get(slug="default")
    run = start_run(project, Graph(vertices), inputs={}, workflow=order["shape"])
    print(run.id)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
