"""Taking a task: for workers by hint, for polling agents by what they are able to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from opscore.database import DatabaseError, Row, query, query_apart
from opscore.logs import get_logger
from tasks.aftermath import Aftermath, tell
from tasks.dispatch import Ready, advance
from tasks.endings import end_task
from tasks.expressions import ExpressionError
from tasks.held import Claimed, claimed
from tasks.reports import fail
from tasks.transitions import repairs, work

__all__ = ["beat", "claim", "let_go", "poll", "put_back"]

log = get_logger(__name__)


def claim(task_id: UUID, attempt: int, session_id: UUID) -> Claimed | None:
    """Take one attempt of a task that a hint named; None when there is nothing to take."""
    rows = query(work.CLAIM, {"id": task_id, "attempt": attempt, "session": session_id})
    return _read(rows[0]) if rows else None


def poll(session_id: UUID, limit: int) -> list[Claimed]:
    """Take up to `limit` tasks that the session's agent is able to do, most urgent first.

    A task whose inputs cannot be evaluated fails here and is not returned.
    """
    rows = query(work.POLL, {"session": session_id, "limit": limit})
    tasks = sorted(filter(None, map(_read, rows)), key=lambda task: -task.priority)
    return [task for task in tasks if _has_inputs(task)]


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


def put_back(task_ids: Iterable[UUID], session_id: UUID) -> None:
    """Give back claims that the session never learned of: the answer to them was lost."""
    for task_id in task_ids:
        rows = query(repairs.UNCLAIM, {"id": task_id, "session": session_id})
        advance([Ready.of(row) for row in rows])


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


def expression_failure(error: ExpressionError) -> dict[str, Any]:
    """Return the structured error of an expression that cannot be evaluated; it is final."""
    return {"type": "expression", "message": str(error), "retryable": False}
