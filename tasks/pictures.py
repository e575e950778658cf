"""The graph of a run as edges, and as a flowchart for Mermaid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from tasks.models import Task

FORMATS = ("json", "mermaid")
#: What Mermaid gives a meaning inside a label, as its own entities.
_ENTITIES = str.maketrans({char: f"#{ord(char)};" for char in '"#&;<>`\\|[](){}*_~'})
_COLOURS = {
    "running": "#bfdbfe",
    "completed": "#bbf7d0",
    "failed": "#fecaca",
    "cancelled": "#e5e7eb",
    "skipped": "#f3f4f6",
    "waiting": "#fde68a",
    "retrying": "#fed7aa",
}


def edges(tasks: Sequence[Task]) -> list[tuple[UUID, UUID]]:
    """Return the pairs (before, after) among tasks of one run."""
    ids = {task.number: task.pk for task in tasks}
    return [
        (task.pk, ids[number])
        for task in tasks
        for number in task.successors
        # The engine's own end node is no task of the user's.
        if number in ids
    ]


def mermaid(tasks: Sequence[Task]) -> str:
    """Return a flowchart whose colours tell the statuses."""
    return "\n".join(_lines(tasks)) + "\n"


def _lines(tasks: Sequence[Task]) -> Iterator[str]:
    yield "flowchart TD"
    names = {task.pk: f"t{task.number}" for task in tasks}
    for task in tasks:
        label = task.key.translate(_ENTITIES)
        yield f'  {names[task.pk]}["{label}<br/>{task.status}"]:::{task.status}'
    for above, below in edges(tasks):
        yield f"  {names[above]} --> {names[below]}"
    for status in sorted({task.status for task in tasks} & set(_COLOURS)):
        yield f"  classDef {status} fill:{_COLOURS[status]}"
