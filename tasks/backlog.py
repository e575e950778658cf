"""How much of a queue is hinted at once: backlogs wait in the database, in its order.

A message cannot be overtaken any more. So only about twice as many tasks are hinted as may run;
the others are held back, and go on by priority, fair share and age: see `tasks.transitions.turns`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from agents.sessions import served_slots
from opscore.database import query, run_together
from opscore.schedule import PLATFORM_QUEUE
from tasks.ready import Ready
from tasks.transitions import turns

#: Hints for each task that may run at once: one runs, one is on its way.
HINTS_A_SLOT = 2
#: A queue with one slot would be filled hint by hint.
SMALLEST_WINDOW = 4
#: So many may be hinted where nothing is held back: a fork of ordinary width travels as one
#: chord, also where few agents serve it.
FORK = 16


def window(slots: int) -> int:
    """Return how far a queue that so many slots serve is filled up."""
    return max(HINTS_A_SLOT * slots, SMALLEST_WINDOW)


def count_to() -> int:
    """Return how far hints that are left must be counted for `is_low` of any queue."""
    slots = [count for queue, count in served_slots().items() if queue != PLATFORM_QUEUE]
    return window(max(slots, default=1)) // 2


def is_low(queue: str, hints_left: int | None) -> bool:
    """Tell whether the claim of a hint should fill its queue up again.

    `hints_left` are those beside it; None: nothing is held back.
    """
    return hints_left is not None and hints_left <= window(served_slots().get(queue, 0)) // 2


def admit(due: Sequence[Ready], slots: Mapping[str, int], *, again: bool = False) -> list[Ready]:
    """Return which tasks are to be hinted now: these, or others whose turn it is.

    What has no room is held back, as is everything new in queues without `slots`: agents that poll
    take it from there. `again`: these were hinted or claimed before, and do not stand in line once
    more; agents that poll take them first.
    """
    by_queue: dict[str, list[Ready]] = {}
    for task in due:
        by_queue.setdefault(task.queue, []).append(task)
    windowed = (
        by_queue if again else {queue: by_queue[queue] for queue in by_queue if queue in slots}
    )
    rooms = _rooms(windowed, slots)
    go: list[Ready] = []
    late: list[Ready] = []
    fill: list[str] = []
    for queue, tasks in by_queue.items():
        size = window(slots.get(queue, 0))
        hinted, held = rooms.get(queue, (0, False))
        if queue in rooms and hinted <= max(size, FORK) and (again or not held):
            go += tasks
            continue
        late += tasks
        # With others waiting already and the window full of others, a claim fills it.
        if queue in slots and not (held and hinted - len(tasks) >= size):
            fill.append(queue)
    if late:
        hold_back(late)
    for queue in fill:
        go += take(queue, window(slots[queue]))
    return go


def _rooms(
    by_queue: Mapping[str, Sequence[Ready]], slots: Mapping[str, int]
) -> dict[str, tuple[int, bool]]:
    """Return of each queue how much is hinted, these tasks included, and whether others wait."""
    if not by_queue:
        return {}
    rows = query(
        turns.ROOM,
        {
            "queues": list(by_queue),
            "priorities": [min(task.priority for task in tasks) for tasks in by_queue.values()],
            "enough": [
                max(window(slots.get(queue, 0)), FORK) + len(tasks) + 1
                for queue, tasks in by_queue.items()
            ],
        },
    )
    return {row["queue"]: (row["hinted"], row["held"]) for row in rows}


def hold_back(tasks: Sequence[Ready]) -> None:
    """Give queued tasks their turns; they are hinted, or claimed by an agent that polls, in these."""
    run_together(
        (turns.LOCK_TURNS, {"queues": sorted({task.queue for task in tasks})}),
        (turns.HOLD, {"ids": [task.id for task in tasks]}),
    )


def take(queue: str, size: int) -> list[Ready]:
    """Take what the queue's window has room for, in order; the caller hints it."""
    found: list[Ready] = []
    # Each statement takes of one priority.
    for _ in range(10):
        rows = query(turns.FILL, {"queue": queue, "window": size})
        found += [Ready.of(row) for row in rows]
        if not rows or len(rows) >= rows[0]["reach"]:
            break
    return found


def held_back(among: Iterable[str] | None = None) -> list[str]:
    """Return the queues in which something is held back."""
    found = [row["queue"] for row in query(turns.HELD_BACK_QUEUES, {})]
    return found if among is None else sorted(set(found) & set(among))


def set_aside(
    *,
    run: UUID | None = None,
    project: int | None = None,
    older_s: float | None = None,
    limit: int = 100_000,
) -> int:
    """Take queued tasks that must not run now out of the windows and lines; return how many.

    All of them, or those of one run or project; with `older_s` only what was hinted that
    long ago. The reconciler hints them when they may run again.
    """
    which = {"run": run, "project": project, "older_s": older_s, "limit": limit}
    return len(query(turns.SET_ASIDE, which))
