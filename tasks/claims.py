"""Taking a task: for workers by hint, for polling agents by what they are able to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction

from agents import sessions
from opscore.database import DatabaseError, Row, query, query_apart
from opscore.logs import get_logger
from tasks import backlog
from tasks.aftermath import Aftermath, tell
from tasks.dispatch import Ready, advance, refill
from tasks.endings import end_task
from tasks.expressions import ExpressionError
from tasks.held import Claimed, claimed
from tasks.reports import fail
from tasks.transitions import repairs, turns, work

__all__ = ["beat", "claim", "let_go", "poll", "put_back", "spent", "taken"]

log = get_logger(__name__)

#: Rows that others may take while one polls, and it still finds its own.
_RIVALS = 64


def claim(task_id: UUID, attempt: int, session_id: UUID) -> Claimed | None:
    """Take one attempt of a task that a hint named; None when there is nothing to take."""
    params = {"id": task_id, "attempt": attempt, "session": session_id}
    rows = query(work.CLAIM, {**params, "low": backlog.count_to()})
    if rows and backlog.is_low(rows[0]["queue"], rows[0]["hints_left"]):
        refill([rows[0]["queue"]])
    return _read(rows[0]) if rows else None


def spent(task_id: UUID) -> str:
    """Say what became of the task whose hint led to nothing; '': it is gone.

    The hint is no longer in the broker: its place is free for another one.
    """
    rows = query(turns.SPENT, {"id": task_id, "low": backlog.count_to()})
    if not rows:
        return ""
    if rows[0]["status"] == "queued":
        query(turns.FORGET, {"id": task_id})
    if backlog.is_low(rows[0]["queue"], rows[0]["hints_left"]):
        refill([rows[0]["queue"]])
    status: str = rows[0]["status"]
    return status


def poll(session_id: UUID, limit: int, concurrency: int | None = None) -> list[Claimed]:
    """Take up to `limit` tasks that the session's agent is able to do, most urgent first.

    With `concurrency` the session never has more than that at once. A task whose inputs cannot
    be evaluated fails here and is not returned.
    """
    rows = (
        _poll(session_id, limit)
        if concurrency is None
        else _poll_in(session_id, limit, concurrency)
    )
    tasks = sorted(filter(None, map(_read, rows)), key=lambda task: -task.priority)
    return [task for task in tasks if _has_inputs(task)]


def _poll(session_id: UUID, limit: int) -> list[Row]:
    params = {"session": session_id, "limit": limit, "reach": limit + _RIVALS}
    return query(work.POLL, {**params, "bare": sessions.bare_queues(session_id)})


def _poll_in(session_id: UUID, limit: int, slots: int) -> list[Row]:
    with transaction.atomic():
        # Two claims of one session at once would both count what it has without the other's.
        query(_ONE_AT_A_TIME, {"class": _LOCK_CLASS, "session": str(session_id)})
        left = slots - taken(session_id)
        return _poll(session_id, min(limit, left)) if left > 0 else []


def taken(session_id: UUID) -> int:
    """Return how many tasks the session holds."""
    held: int = query(_TAKEN, {"session": session_id})[0]["n"]
    return held


#: First half of the advisory lock "a claim of this session"; any constant does.
_LOCK_CLASS = 0x0B60
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(%(class)s::int, hashtext(%(session)s::text))"
_TAKEN = """
SELECT count(*)::int AS n FROM tasks_task
 WHERE session_id = %(session)s AND status = 'running'
"""


def _read(row: Row) -> Claimed | None:
    """Read a claim; one that cannot be read fails, or its task would stay claimed for ever."""
    try:
        return claimed(row)
    except DatabaseError:
        raise
    except Exception as error:
        log.exception("claim.unreadable", task=str(row["id"]))
        end_task(
            row["id"],
            fence=row["fence"],
            status="failed",
            sources=["running"],
            error={"type": "internal", "message": f"it cannot be read: {error}"},
            outcome="failed",
        )
        return None


def put_back(task_ids: Iterable[UUID], session_id: UUID, fence: int | None = None) -> None:
    """Give back claims that the session never learned of: the answer to them was lost.

    `fence` is that of the claim; None: whichever the session holds.
    """
    for task_id in task_ids:
        rows = query(repairs.UNCLAIM, {"id": task_id, "session": session_id, "fence": fence})
        advance([Ready.of(row) for row in rows], again=True)


def beat(task_id: UUID, fence: int, *, apart: bool = False) -> bool:
    """Say that the attempt is alive; False: it is over, stop working on it.

    `apart`: not as part of an open transaction. A handler's own would hide the sign of life, and
    keep the task's row from everybody until the handler ends.
    """
    ask = query_apart if apart else query
    return bool(ask(work.BEAT, {"id": task_id, "fence": fence}))


def let_go(task_ids: Sequence[UUID], fence: int | None = None) -> None:
    """Say that nobody works on these tasks any more, if they were cancelled.

    `fence` is that of the attempt which ended; None: whichever.
    """
    rows = query(repairs.LET_GO, {"ids": list(task_ids), "fence": fence})
    freed = {(row["project_id"], row["limit_key"]) for row in rows if row["limit_key"]}
    tell(Aftermath(freed=sorted(freed)))


def _has_inputs(task: Claimed) -> bool:
    try:
        _ = task.inputs
    except ExpressionError as error:
        fail(task.id, task.fence, expression_failure(error))
        return False
    return True


def expression_failure(error: Exception) -> dict[str, Any]:
    """Return the structured error of an expression that cannot be evaluated; it is final."""
    return {"type": "expression", "message": str(error), "retryable": False}
