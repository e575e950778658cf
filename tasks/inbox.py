"""What people and programs tell a run from outside: signals and approvals."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.db import transaction

from opscore.database import query
from opscore.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError, Problem
from opscore.models import Event
from tasks.expressions import meant
from tasks.held import Claimed
from tasks.models import Run, Signal, Task
from tasks.placeholders import Code, split
from tasks.reports import complete_waiting, fail, waiting_task
from tasks.results import ResultError, encode
from tasks.states import RUN

DECISIONS = ("approve", "reject")
#: Tasks whose body is a run of its own, with signals of its own.
_INSIDE = "Blocks and sub-workflows are runs of their own: a signal for one goes to its own id."

_OPEN = """
SELECT t.id, t.fence FROM tasks_task t
 WHERE t.run_id = %(run)s AND t.status = 'waiting' AND t.waits_for = 'signal'
   AND t.names->>'signal' = %(name)s
 ORDER BY t.number LIMIT 1 FOR NO KEY UPDATE
"""
_TAKE = """
UPDATE tasks_signal SET taken_by = %(task)s
 WHERE id = (SELECT id FROM tasks_signal
              WHERE run_id = %(run)s AND name = %(name)s AND taken_by IS NULL
              ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING payload::json, sent_by
"""
_WAITING = """
SELECT DISTINCT t.run_id, s.name FROM tasks_task t
  JOIN tasks_signal s ON s.run_id = t.run_id AND s.name = t.names->>'signal'
 WHERE t.status = 'waiting' AND t.waits_for = 'signal' AND s.taken_by IS NULL LIMIT 500
"""
_NAMES = """
SELECT DISTINCT uses <> 'signal' AS inside,
       CASE WHEN uses = 'signal' THEN COALESCE(NULLIF(inputs->>'name', ''), key) END AS name
  FROM tasks_task
 WHERE run_id = %(run)s AND (uses IN ('signal', 'block') OR starts_with(uses, 'workflow:'))
"""


def send(run_id: UUID, name: str, payload: Any, sent_by: str = "") -> Signal:
    """Keep a signal for a run and wake the task that waits for it; each is taken by one task.

    Raises NotFoundError, ConflictError when the run has ended, InvalidError for no JSON.
    """
    run = Run.objects.filter(id=run_id).first()
    if run is None:
        raise NotFoundError(f"There is no run {run_id}.")
    if run.status in RUN.terminal:
        raise ConflictError(f"The run is {run.status} already; it takes no signals.")
    if not name or len(name) > 100:
        problem = Problem("a signal's name has 1 to 100 characters", "name")
        raise InvalidError("The signal is not valid.", [problem])
    _check(payload)
    signal = Signal.objects.create(run=run, name=name, payload=payload, sent_by=sent_by)
    Event.objects.create(
        project_id=run.project_id,
        kind="run.signal",
        run_id=run.id,
        actor=sent_by,
        data={"name": name},
    )
    deliver(run_id, name)
    return signal


def warning_of(signal: Signal) -> str:
    """Return a sentence when no task of the run uses the signal's name or can; else ''."""
    if signal.taken_by:
        return ""
    rows = query(_NAMES, {"run": signal.run_id})
    names = {row["name"] for row in rows if not row["inside"]}
    if any(_may_become(name, signal.name) for name in names):
        return ""
    hint = meant(signal.name, (name for name in names if "${{" not in name)) or "."
    inside = f" {_INSIDE}" if any(row["inside"] for row in rows) else ""
    return f"No task of the run waits for a signal `{signal.name}`{hint}{inside}"


def _may_become(template: str, name: str) -> bool:
    """Tell whether a text with expressions may have this value: its two ends are known."""
    try:
        parts = split(template)
    except ValueError:
        return True
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0] == name
    first, last = ("" if isinstance(end, Code) else end for end in (parts[0], parts[-1]))
    # A line break after the last expression may not count.
    return name.startswith(first) and name.endswith(last.rstrip("\n"))


def send_to_task(task_id: UUID, payload: Any, sent_by: str = "") -> None:
    """End one task's wait for a signal with this payload.

    Raises NotFoundError, ConflictError when it does not wait for one, InvalidError for no JSON.
    """
    found = Task.objects.filter(id=task_id).first()
    if found is None:
        raise NotFoundError(f"There is no task {task_id}.")
    if (found.status, found.waits_for) != ("waiting", "signal"):
        raise ConflictError(f"The task is {found.status}; it does not wait for a signal.")
    _check(payload)
    with transaction.atomic():
        complete_waiting(waiting_task(task_id, found.fence), payload)
        Signal.objects.create(
            run_id=found.run_id,
            name=found.names["signal"],
            payload=payload,
            sent_by=sent_by,
            taken_by=task_id,
        )


def _check(payload: Any) -> None:
    try:
        encode(payload)
    except ResultError as error:
        problem = Problem(str(error).replace("result", "payload"))
        raise InvalidError("The payload cannot be kept.", [problem]) from None


def deliver(run_id: UUID, name: str) -> None:
    """Give open signals of this name to the tasks that wait for them, in order."""
    while _deliver_one(run_id, name):
        pass


def _deliver_one(run_id: UUID, name: str) -> bool:
    with transaction.atomic():
        waiting = query(_OPEN, {"run": run_id, "name": name})
        if not waiting:
            return False
        taken = query(_TAKE, {"run": run_id, "name": name, "task": waiting[0]["id"]})
        if not taken:
            return False
        task = waiting_task(waiting[0]["id"], waiting[0]["fence"])
        complete_waiting(task, taken[0]["payload"])
    return True


def deliver_all() -> None:
    """Deliver whatever lies beside a task that waits for it: the news of it was lost."""
    for row in query(_WAITING, {}):
        deliver(row["run_id"], row["name"])


def decide(
    task_id: UUID,
    decision: str,
    *,
    by: str,
    comment: str = "",
    roles: Collection[str] | None = None,
) -> None:
    """Approve or reject a task that waits for it. A rejected one fails with type `rejected`.

    `roles` are those of who decides; None: all. Raises NotFoundError, ConflictError when it
    does not wait for a decision (any more), ForbiddenError without the role that it asks for.
    """
    found = Task.objects.filter(id=task_id).first()
    if found is None:
        raise NotFoundError(f"There is no task {task_id}.")
    if (found.status, found.waits_for) != ("waiting", "approval"):
        raise ConflictError(f"The task is {found.status}; it does not wait for an approval.")
    role = found.names["approval"].get("role")
    if role and roles is not None and role not in roles:
        raise ForbiddenError(f"Only the role {role} may decide this.")
    with transaction.atomic():
        task = waiting_task(task_id, found.fence)
        _record(task, decision, by, comment)


def expire(task: Claimed) -> None:
    """Decide an approval whose time is over, as its `on_expiry` says (default: fail)."""
    how = task.names["approval"].get("on_expiry", "fail")
    if how in DECISIONS:
        _record(task, how, "expiry", "nobody decided in time")
        return
    error = {"type": "expired", "message": "nobody decided in time", "retryable": False}
    fail(task.id, task.fence, error, outcome="timeout", waiting=True)


def _record(task: Claimed, decision: str, by: str, comment: str) -> None:
    approved = decision == "approve"
    result = {"approved": approved, "by": by, "comment": comment}
    Event.objects.create(
        project_id=task.project_id,
        kind="task.approved" if approved else "task.rejected",
        run_id=task.run_id,
        task_id=task.id,
        actor=by,
        data={"comment": comment},
    )
    if approved:
        complete_waiting(task, result)
        return
    message = f"rejected by {by}" + (f": {comment}" if comment else "")
    error = {"type": "rejected", "message": message, "retryable": False}
    fail(task.id, task.fence, error, waiting=True)
