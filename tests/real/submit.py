"""Starts test graphs and prints the runs' ids: python -m tests.real.submit JSON.

The JSON is one order, or a list of them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from random import Random
from typing import Any

import django


def main(order: dict[str, Any]) -> None:
    """Start the graph that the order names."""
    from opscore.models import Project
    from tasks.flow import Flow
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
        "wide": lambda: Graph.of(
            [Node(key=f"t{number}", capability="work") for number in range(order["count"])]
        ),
        "sticky": lambda: Graph.of(
            [
                Node(key=f"{key}{n}", capability="work", flow=Flow(sticky=key))
                for n in range(6)
                for key in ("red", "blue")
            ]
        ),
        "prefers": lambda: Graph.of(
            [
                Node(
                    key=f"t{n}",
                    capability="work",
                    needs=(f"t{n - 1}",) if n else (),
                    flow=Flow(prefers={"gpu": 1}),
                )
                for n in range(6)
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
    wanted = {name: order[name] for name in ("priority", "fairness_key") if name in order}
    run = start_run(project, Graph(vertices), inputs={}, workflow=order["shape"], **wanted)
    print(run.id)


if __name__ == "__main__":
    django.setup()
    orders = json.loads(sys.argv[1])
    for each in orders if isinstance(orders, list) else [orders]:
        main(each)
