"""Sends hints for ready tasks, after commit; a hint that is lost costs time, never the outcome."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings

from agents.sessions import served_queues
from opscore.database import after_commit, query, release
from opscore.logs import get_logger
from tasks import canvas
from tasks.segments import Planner, Spot
from tasks.topology import GRAPH_NUMBERS, Address, Topology, topology

log = get_logger(__name__)

#: Polling agents listen on this PostgreSQL channel; the payload is the capability.
READY_CHANNEL = "opscore_ready"


@dataclass(frozen=True, slots=True)
class Ready:
    """A task that may run now, as the engine's statements return it."""

    id: UUID
    run_id: UUID
    number: int
    attempt: int
    queue: str
    capability: str
    priority: int
    uncarried: bool
    in_degree: int
    successors: tuple[int, ...]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Ready:
        """Read a row of a statement or of its JSON."""
        return cls(
            UUID(str(row["id"])),
            UUID(str(row["run_id"])),
            row["number"],
            row["attempt"],
            row["queue"],
            row["capability"],
            row["priority"],
            row["uncarried"],
            row["in_degree"],
            tuple(row["successors"]),
        )


def advance(ready: Sequence[Ready], carried: Collection[int] = ()) -> None:
    """Hint the ready tasks once the open transaction has committed.

    `carried` are the numbers that the present canvas delivers by itself; a task whose carrier
    ended early is hinted all the same. Tasks whose queue no Celery worker serves are announced
    to polling agents instead. Never raises: what could not be sent is hinted again later.
    """
    due = [task for task in ready if task.number not in carried or task.uncarried]
    if due:
        after_commit(lambda: _send(due))


def _send(due: Sequence[Ready]) -> None:
    try:
        served = _served({task.queue for task in due})
        by_run: dict[UUID, list[Ready]] = {}
        for task in due:
            if task.queue in served:
                by_run.setdefault(task.run_id, []).append(task)
        # The first failure ends it: with the broker away each try would take its time-out.
        for run_id, tasks in by_run.items():
            _send_run(run_id, tasks, served)
        _announce({task.capability for task in due if task.queue not in served})
    except Exception as error:  # noqa: BLE001 - a hint is optional, the reconciler repeats it
        log.warning("hint.not_sent", tasks=len(due), error=str(error))
        release()


def _served(wanted: set[str]) -> frozenset[str]:
    served = served_queues()
    # An agent may have become ready since the cached answer; asking again costs less than
    # the seconds that the task would wait for its next hint.
    return served if wanted <= served else served_queues(max_age_s=0.05)


def _send_run(run_id: UUID, tasks: Sequence[Ready], served: frozenset[str]) -> None:
    graph = _graph(run_id, tasks)
    own = {task.number: Address(task.id, task.attempt, task.queue, task.priority) for task in tasks}
    planner = Planner(
        graph.spots,
        chords=settings.OPSCORE_JOIN == "chord",
        deliverable=lambda number: _deliverable(graph.addresses[number], served),
    )
    plan = planner.plan([task.number for task in tasks])
    canvas.send(plan, ChainMap(own, graph.addresses))


def _graph(run_id: UUID, tasks: Sequence[Ready]) -> Topology:
    # Nothing can be carried behind these: their own rows are all that is needed.
    ends = {
        task.number: Spot(task.number, task.in_degree, ())
        for task in tasks
        if not task.successors or task.number >= GRAPH_NUMBERS
    }
    if len(ends) == len(tasks):
        return Topology(ends, {})
    whole = topology(run_id)
    return Topology(ChainMap(ends, whole.spots), whole.addresses)  # type: ignore[arg-type]


def _deliverable(address: Address, served: frozenset[str]) -> bool:
    return address.plain and address.queue in served


def _announce(capabilities: set[str]) -> None:
    for capability in capabilities:
        query(
            "SELECT pg_notify(%(channel)s, %(capability)s)",
            {"channel": READY_CHANNEL, "capability": capability},
        )
