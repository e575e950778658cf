"""The graphs that engines are compared on, and how fast they could be done at best.

`dag60.json` is the fixed irregular graph of 60 nodes and 110 edges that other engines were measured
on: its figures can be set beside theirs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: Node -> the nodes that it needs.
Needs = Mapping[int, Sequence[int]]

DAG8: Needs = {0: [], 1: [0], 2: [0], 3: [1], 4: [1], 5: [2], 6: [3, 4, 5], 7: [6]}
_DAG60 = json.loads(Path(__file__).with_name("dag60.json").read_text())
DAG60: Needs = {
    node: [first for first, second in _DAG60["edges"] if second == node]
    for node in range(_DAG60["nodes"])
}
#: How long each node of it takes where they differ.
VARIED_MS: Sequence[int] = _DAG60["ms"]


def chain(length: int) -> Needs:
    """Return a linear run of nodes."""
    return {node: [node - 1] if node else [] for node in range(length)}


def fork(width: int) -> Needs:
    """Return one node, `width` beside each other, and one that joins them."""
    return {0: [], **{node: [0] for node in range(1, width + 1)}, width + 1: range(1, width + 1)}


def critical_path_s(needs: Needs, took_ms: Sequence[int]) -> float:
    """Return how long a graph takes that loses no time at all."""
    ends: dict[int, int] = {}
    for node in sorted(needs):
        ends[node] = took_ms[node] + max((ends[above] for above in needs[node]), default=0)
    return max(ends.values()) / 1000


def levels(needs: Needs) -> list[list[int]]:
    """Return the nodes by the longest way to them: canvases written by hand wait between these."""
    level: dict[int, int] = {}
    for node in sorted(needs):
        level[node] = 1 + max((level[above] for above in needs[node]), default=-1)
    found: list[list[int]] = [[] for _ in range(max(level.values()) + 1)]
    for node, place in level.items():
        found[place].append(node)
    return found


def definition(name: str, needs: Needs, took_ms: Sequence[int] | None = None) -> dict[str, Any]:
    """Return a workflow of such a graph; without `took_ms` its tasks do nothing."""
    return {
        "name": name,
        "tasks": {
            f"n{node}": {
                "capability": "work",
                "needs": [f"n{above}" for above in needs[node]],
                "with": {"ms": took_ms[node] if took_ms else 0},
            }
            for node in needs
        },
    }
