"""Decides tasks that the database cannot release by itself: joins, conditions, waits, loops.

Each decision is one transaction under the lock of the task's row, so any number of processes
may decide at once; what a dying process left undecided is found in the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import UUID

from django.db import InterfaceError, OperationalError, transaction

from opscore.database import Row, query, release
from opscore.logs import get_logger
from tasks import inbox, items, joins
from tasks.bodies import enter
from tasks.endings import end_task, tell_below
from tasks.expressions import ExpressionError, evaluate
from tasks.held import Claimed, claimed
from tasks.reports import complete_waiting, fail
from tasks.results import ResultError
from tasks.transitions import repairs, work
from tasks.waits import RefusedError, wait

log = get_logger(__name__)


def settle(task_ids: Iterable[UUID]) -> None:
    """Decide these tasks, each by itself; one that breaks stops no other."""
    for task_id in task_ids:
        _guarded(decide, task_id)


def settle_due(limit: int) -> bool:
    """Go on with waits that are over; return whether there may be more."""
    rows = query(repairs.DUE, {"limit": limit})
    for row in rows:
        _guarded(go_on, row["id"])
    return len(rows) >= limit


def _guarded(verb: Any, task_id: UUID) -> None:
    try:
        verb(task_id)
    except Exception:
        log.exception("task.undecided", task=str(task_id))
        release()


def decide(task_id: UUID) -> None:
    """Run, skip or leave a pending task, as its join and its condition say."""
    with transaction.atomic():
        statuses = ["pending", "cancelled"]
        for row in query(work.DECIDABLE, {"id": task_id, "statuses": statuses}):
            if row["status"] == "cancelled":
                tell_below(task_id)
                return
            verdict = _verdict(row)
            if verdict == "skip":
                _end(task_id, "skipped", _upstream(row))
            elif verdict == "run":
                _begin(row)


def _verdict(row: Row) -> joins.Verdict:
    failed, skipped = row["needs_failed"], row["needs_skipped"]
    succeeded = row["in_degree"] - row["pending"] - failed - skipped
    return joins.verdict(
        row["join"], pending=row["pending"], succeeded=succeeded, failed=failed, skipped=skipped
    )


def _upstream(row: Row) -> dict[str, Any]:
    return {
        "type": "upstream_failed" if row["needs_failed"] else "upstream_skipped",
        "message": f"not run: of its {row['in_degree']} needs {row['needs_failed']} failed and "
        f"{row['needs_skipped']} were skipped (join: {row['join']})",
    }


def _begin(row: Row) -> None:
    def start() -> None:
        task = claimed(row)
        if _wanted(task):
            _start(task, row["depth"])

    _or_fail(row, start)


def _or_fail(row: Row, start: Callable[[], None]) -> None:
    """Do it in a transaction of its own inside the present one; what cannot begin fails.

    Only a database that is away is left to the next try.
    """
    try:
        with transaction.atomic():
            start()
    except (OperationalError, InterfaceError):
        raise
    except (ExpressionError, RefusedError, ResultError) as error:
        _fail(row, _reason(error))
    except Exception as error:
        # Undecided, the task would keep its run alive for ever.
        log.exception("task.cannot_begin", task=str(row["id"]))
        reason = {"type": "internal", "message": str(error), "retryable": False}
        _end(row["id"], "failed", reason)


def _fail(row: Row, error: Mapping[str, Any]) -> None:
    """Fail what cannot begin: to be tried again, caught, or for good.

    Retry and catch of a list are those of its items.
    """
    if "for_each" in row["flow"]:
        _end(row["id"], "failed", error)
    else:
        fail(row["id"], wait(row["id"], "failure"), error, waiting=True)


def _start(task: Claimed, depth: int) -> None:
    if task.flow.for_each is not None:
        items.expand(task)
    else:
        enter(task, depth)


def _wanted(task: Claimed) -> bool:
    """Judge the condition; a task that is not wanted is skipped."""
    condition = task.flow.condition
    if not condition:
        return True
    value = evaluate(condition, task.scope, path="if")
    if not isinstance(value, bool):
        raise ExpressionError(f"must be true or false, not {value!r}"[:300], "if")
    if not value:
        _end(task.id, "skipped", {"type": "condition", "message": f"`if` is false: {condition}"})
    return value


def _end(task_id: UUID, status: str, error: Mapping[str, Any]) -> None:
    sources = ["pending"] if status == "skipped" else ["pending", "waiting", "retrying"]
    end_task(task_id, fence=None, status=status, sources=sources, error=error)


def _reason(error: ExpressionError | RefusedError | ResultError) -> Mapping[str, Any]:
    if isinstance(error, RefusedError):
        return error.error
    if isinstance(error, ResultError):
        return error.as_dict()
    return {"type": "expression", "message": str(error), "retryable": False}


def go_on(task_id: UUID) -> None:
    """Go on with a task whose wait is over."""
    with transaction.atomic():
        sources = {"id": task_id, "statuses": ["waiting", "retrying"]}
        for row in query(work.DECIDABLE, sources):
            if row["waits_for"] == "time":
                complete_waiting(claimed(row), None)
            elif row["waits_for"] == "approval":
                inbox.expire(claimed(row))
            else:
                _again(row)


def _again(row: Row) -> None:
    # A start that was reserved and is past by more than a tick would make a burst with others.
    in_rate = row["waits_for"] == "rate" and not row["late"]
    # A rate limit comes after the breaker: what waited for it was let through.
    passed = row["waits_for"] in ("breaker", "rate")
    _or_fail(row, lambda: enter(claimed(row), row["depth"], in_rate=in_rate, let_through=passed))
