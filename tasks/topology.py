"""The unchanging part of a run's graph, kept for the runs that this process works on."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from uuid import UUID

from opscore.database import query
from tasks.segments import Spot

#: Bounds of the memory: a task takes about 0.5 kB here.
_KEPT_RUNS = 128
_KEPT_TASKS = 50_000

#: Tasks with higher numbers came later: items of lists, undo. They carry nothing.
GRAPH_NUMBERS = 100_000

_ROWS = f"""
SELECT number, id, queue, priority, in_degree, successors,
       plain AND NOT flow ?| '{{prefers,sticky}}' AS plain
  FROM tasks_task WHERE run_id = %(run)s AND number < {GRAPH_NUMBERS} ORDER BY number
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True)
class Address:
    """How one task is reached."""

    id: UUID
    attempt: int
    queue: str
    priority: int
    plain: bool = True
    """False: only the database can say whether, how and at which agent it runs."""


@dataclass(frozen=True, slots=True)
class Topology:
    """A run's graph as the planner sees it."""

    spots: Mapping[int, Spot]
    addresses: MutableMapping[int, Address]


_kept: OrderedDict[UUID, Topology] = OrderedDict()
_lock = threading.Lock()


def topology(run_id: UUID) -> Topology:
    """Return a run's graph, read once: it never changes, and run ids are never used twice."""
    with _lock:
        if run_id in _kept:
            _kept.move_to_end(run_id)
            return _kept[run_id]
    rows = query(_ROWS, {"run": run_id})
    graph = Topology(
        {
            row["number"]: Spot(row["number"], row["in_degree"], tuple(row["successors"]))
            for row in rows
        },
        {
            row["number"]: Address(row["id"], 1, row["queue"], row["priority"], row["plain"])
            for row in rows
        },
    )
    remember(run_id, graph)
    return graph


def remember(run_id: UUID, graph: Topology) -> None:
    """Keep a graph that is known already; the least recently used ones make room."""
    with _lock:
        _kept[run_id] = graph
        tasks = sum(len(kept.spots) for kept in _kept.values())
        while len(_kept) > 1 and (len(_kept) > _KEPT_RUNS or tasks > _KEPT_TASKS):
            tasks -= len(_kept.popitem(last=False)[1].spots)
