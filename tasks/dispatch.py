"""Sends hints for ready tasks, after commit; a hint that is lost costs time, never the outcome."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from uuid import UUID

from django.conf import settings

from agents import routes
from agents.sessions import served_slots
from opscore.database import after_commit, query, release
from opscore.logs import get_logger
from tasks import addressing, backlog, canvas
from tasks.ready import Ready
from tasks.segments import Planner, Spot
from tasks.topology import GRAPH_NUMBERS, Address, Topology, topology

__all__ = ["READY_CHANNEL", "Ready", "advance", "refill"]

log = get_logger(__name__)

#: Polling agents listen on this PostgreSQL channel; the payload is the capability, or the own
#: queue of the agent that is meant.
READY_CHANNEL = "opscore_ready"


def advance(ready: Sequence[Ready], carried: Collection[int] = (), *, again: bool = False) -> None:
    """Hint the ready tasks once the open transaction has committed.

    `carried` are the numbers that the present canvas delivers by itself; a task whose carrier
    ended early is hinted all the same. What a queue's window has no room for is held back until
    it is its turn, `again`: unless it was hinted before. Tasks whose queue no Celery worker serves
    are announced to polling agents instead. Never raises: what could not be sent is hinted later.
    """
    due = [task for task in ready if task.number not in carried or task.uncarried]
    if due:
        after_commit(lambda: _send(due, again=again))


def refill(queues: Iterable[str]) -> None:
    """Hint what is held back in these queues, as far as there is room. Never raises."""
    wanted = set(queues)
    try:
        slots = _slots(wanted)
        for queue in sorted(wanted & set(slots)):
            _hint_or_tell(backlog.take(queue, backlog.window(slots[queue])))
    except Exception as error:  # noqa: BLE001 - a hint is optional, the reconciler repeats it
        log.warning("hint.not_sent", queues=sorted(wanted), error=str(error))
        release()


def _send(due: Sequence[Ready], *, again: bool) -> None:
    try:
        slots = _slots({task.queue for task in due})
        # Queues whose tasks are addressed have a window also where all agents poll: what is
        # addressed is taken before all that stands in line.
        windows = {**dict.fromkeys(routes.special(), 0), **slots}
        # What wishes for an agent has no place in the line of all: it would keep others waiting.
        apart = [task for task in due if task.wishes]
        line = [task for task in due if not task.wishes]
        go = backlog.admit(line, windows, again=again)
        _hint_or_tell([*apart, *go])
        # After they have their turns: an agent that looks skips what is locked at that moment.
        told = {task.id for task in go}
        _announce({task.word for task in line if task.queue not in slots and task.id not in told})
    except Exception as error:  # noqa: BLE001 - a hint is optional, the reconciler repeats it
        log.warning("hint.not_sent", tasks=len(due), error=str(error))
        release()


def _hint_or_tell(tasks: Sequence[Ready]) -> None:
    """Choose agents where that is wanted; then hint workers, and tell agents that poll."""
    tasks = _addressed(tasks)
    slots = _slots({task.queue for task in tasks})
    _hint([task for task in tasks if task.queue in slots], slots)
    _announce({task.word for task in tasks if task.queue not in slots})


def _addressed(due: Sequence[Ready]) -> Sequence[Ready]:
    """Return the tasks with the own queues of those agents that are chosen for some of them."""
    homes = addressing.homes((task.id, task.queue, task.wishes) for task in due)
    return [replace(task, queue=homes.get(task.id, task.queue)) for task in due] if homes else due


def _slots(wanted: set[str]) -> Mapping[str, int]:
    slots = served_slots()
    # An agent may have become ready since the cached answer; asking again costs less than
    # the seconds that the task would wait for its next hint.
    return slots if wanted <= slots.keys() else served_slots(max_age_s=0.05)


def _hint(tasks: Sequence[Ready], slots: Mapping[str, int]) -> None:
    # Neighbours only: what takes turns is sent in that order. The first failure ends it: with the
    # broker away each try would take its time-out.
    for run_id, together in groupby(tasks, key=lambda task: task.run_id):
        _send_run(run_id, list(together), slots)


def _send_run(run_id: UUID, tasks: Sequence[Ready], served: Collection[str]) -> None:
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


def _deliverable(address: Address, served: Collection[str]) -> bool:
    return address.plain and address.queue in served and address.queue not in routes.special()


def _announce(words: set[str]) -> None:
    for word in words:
        query("SELECT pg_notify(%(channel)s, %(word)s)", {"channel": READY_CHANNEL, "word": word})
