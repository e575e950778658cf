"""A run as a tree: its tasks under what they need, items and blocks under their tasks.

A task hangs below the nearest one that all its needs come from; one that follows another alone, or
joins branches, stands under it at the same height, so that long chains stay narrow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from opscore_sdk.wire import Run, RunTask

#: Statuses whose rows are kept longest where there is no room for all of them.
_AT_WORK = ("running", "retrying", "failed", "waiting", "cancelling", "queued")
_ITEM = re.compile(r"(.*)(\[[0-9]+\])", re.DOTALL)
#: Runs in runs that are drawn.
_DEEPEST = 8


@dataclass(frozen=True)
class Row:
    """One line of the tree; without a task it stands for several that are not shown."""

    branch: str
    """Lines that lead to it, as `│  ├─ `."""
    label: str
    task: RunTask | None = None


@dataclass
class _Node:
    task: RunTask | None
    above: _Node | None = None
    depth: int = 0
    label: str = ""
    inside: list[_Node] = field(default_factory=list)
    """Its items, or the tasks of its block."""
    branches: list[_Node] = field(default_factory=list)
    joins: list[_Node] = field(default_factory=list)


def rows_of(run: Run, inner: Mapping[str, Run] = {}) -> list[Row]:
    """Return the lines of a run; `inner`: id of a task -> the run that it started."""
    return list(_drawn(_rooted(run.tasks, inner)))


def fitted(rows: Sequence[Row], height: int) -> list[Row]:
    """Return as many rows as there is room for, what is at work first, in their order.

    Those that are left out are counted in a row of their own.
    """
    if len(rows) <= height:
        return list(rows)
    room = max(height - 1, 1)
    order = sorted(range(len(rows)), key=lambda place: (_rank(rows[place]), place))
    kept = sorted(order[:room])
    counts: dict[str, int] = {}
    for place in order[room:]:
        task = rows[place].task
        status = task.status if task else "?"
        counts[status] = counts.get(status, 0) + 1
    left = ", ".join(f"{number} {status}" for status, number in counts.items())
    return [*(rows[place] for place in kept), Row("", f"… and {left}")]


def _rank(row: Row) -> int:
    status = row.task.status if row.task else ""
    # What comes next says more than what is over.
    return _AT_WORK.index(status) if status in _AT_WORK else 10 + (status != "pending")


def _rooted(tasks: Sequence[RunTask], inner: Mapping[str, Run], depth: int = 0) -> _Node:
    root = _Node(None)
    nodes: dict[str, _Node] = {}
    for task in tasks:
        node = nodes[task.key] = _Node(task, label=task.key)
        found = _ITEM.fullmatch(task.key)
        if found and found[1] in nodes:
            node.label = found[2]
            nodes[found[1]].inside.append(node)
            continue
        needs = [nodes[key] for key in task.needs if key in nodes]
        node.above = _common(needs) or root
        node.depth = node.above.depth + 1
        (node.above.joins if len(needs) > 1 else node.above.branches).append(node)
    if depth < _DEEPEST:
        for node in nodes.values():
            started = inner.get(node.task.id) if node.task else None
            if started is not None:
                node.inside.append(_rooted(started.tasks, inner, depth + 1))
    return root


def _common(nodes: Sequence[_Node]) -> _Node | None:
    """Return the lowest node that all of these hang below, or are."""
    found: _Node | None = None
    for node in nodes:
        found = node if found is None else _meeting(found, node)
    return found


def _meeting(one: _Node, other: _Node) -> _Node:
    while one is not other:
        if one.depth < other.depth:
            one, other = other, one
        if one.above is None:
            return one
        one = one.above
    return one


def _drawn(root: _Node) -> Iterator[Row]:
    """Yield the lines from the top; a stack of its own, for chains of any length."""
    left = [_Place(root, "", "")]
    while left:
        place = left.pop()
        if place.node.task is not None:
            yield Row(place.branch, place.node.label, place.node.task)
        left += reversed(list(_below(place.node, place.lead)))


def _below(node: _Node, lead: str) -> Iterator[_Place]:
    """Yield what is inside a node, its branches, then what goes on at its height."""
    for run in node.inside:
        if run.task is None:
            # The line holds the tasks of a block together.
            yield _Place(run, "", f"{lead}┆ ")
    yield from _branched([item for item in node.inside if item.task is not None], lead)
    branches, going_on = node.branches, node.joins
    if len(branches) == 1:
        branches, going_on = [], [*branches, *going_on]
    yield from _branched(branches, lead)
    yield from (_Place(one, lead, lead) for one in going_on)


def _branched(nodes: Sequence[_Node], lead: str) -> Iterator[_Place]:
    for node in nodes[:-1]:
        yield _Place(node, f"{lead}├─ ", f"{lead}│  ")
    for node in nodes[-1:]:
        yield _Place(node, f"{lead}└─ ", f"{lead}   ")


@dataclass(frozen=True)
class _Place:
    node: _Node
    branch: str
    """What stands before it."""
    lead: str
    """What stands before all that is below it."""
