"""What happened to an attempt: completed or failed, recorded once, under its fence."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any
from uuid import UUID

from django.db import transaction

from opscore import vault
from opscore.database import query
from opscore.errors import ConflictError
from opscore.logs import get_logger
from tasks import catches, outcomes
from tasks.aftermath import Aftermath, tell
from tasks.dispatch import Ready, advance
from tasks.endings import end_task
from tasks.expressions import ExpressionError, evaluate, render
from tasks.held import Claimed, held
from tasks.results import ResultError, encode, storable, store
from tasks.retries import Retry, RetryPolicy, decide
from tasks.transitions import repairs, work

log = get_logger(__name__)
_rng = Random()  # noqa: S311 - jitter, no secret


class UnusableError(Exception):
    """A handler's result that cannot be kept; the attempt fails with this structured error."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error["message"]))
        self._error = dict(error)

    def as_dict(self) -> dict[str, Any]:
        """Return the structured error."""
        return self._error


@dataclass(frozen=True, slots=True)
class Report:
    """A completed attempt, ready to be written."""

    id: UUID
    fence: int
    result: str | None
    """JSON text; None when `reference` names the payload."""
    reference: UUID | None = None
    outputs: str | None = None


def complete(task_id: UUID, fence: int, result: Any) -> None:
    """Record a result that came from outside this process.

    Raises ConflictError when the fence is old: the attempt is over, nothing changes.
    A result that is not JSON or too large fails the attempt instead.
    """
    task = held(task_id, fence)
    if task is None:
        raise ConflictError(REFUSED)
    try:
        complete_claimed(task, result)
    except UnusableError as error:
        fail(task_id, fence, error.as_dict())


def complete_claimed(task: Claimed, result: Any, carried: Collection[int] = ()) -> bool:
    """Record the result of a claimed attempt, secrets masked, and hint what it releases, but
    for `carried`.

    Returns False when the task repeats: it is not done yet. Raises ConflictError when the fence
    is old, UnusableError when the result cannot be kept.
    """
    result = vault.redactor(task.project_id).data(result)
    if task.flow.repeat and _repeats(task, result):
        return False
    if not complete_many([prepare(task, result)], carried):
        raise ConflictError(REFUSED)
    return True


def complete_waiting(task: Claimed, result: Any) -> None:
    """End a task's wait with a result. One that cannot be kept fails the task."""
    try:
        complete_claimed(task, result)
    except UnusableError as error:
        fail(task.id, task.fence, error.as_dict(), waiting=True)


def waiting_task(task_id: UUID, fence: int) -> Claimed:
    """Return the waiting (or running) task that the fence holds. Raises ConflictError."""
    task = held(task_id, fence, waiting=True)
    if task is None:
        raise ConflictError(REFUSED)
    return task


def prepare(task: Claimed, result: Any) -> Report:
    """Encode a result and evaluate the task's outputs. Raises UnusableError."""
    outputs = None
    try:
        if task.outputs_template is not None:
            outputs = encode(render(task.outputs_template, {**task.scope, "result": result}))
        stored = store(task.project_id, result)
    except ResultError as error:
        raise UnusableError(error.as_dict()) from error
    except ExpressionError as error:
        raise UnusableError(_expression("outputs", error)) from error
    return Report(task.id, task.fence, stored.text, stored.reference, outputs)


def prepare_waiting(task_id: UUID, fence: int, result: Any) -> Report:
    """Do what `prepare` does for a task that waits. Raises ConflictError, UnusableError."""
    return prepare(waiting_task(task_id, fence), result)


def _repeats(task: Claimed, result: Any) -> bool:
    """Park a task whose loop goes on; return whether it does. Raises UnusableError at its end."""
    repeat = task.flow.repeat
    assert repeat is not None  # noqa: S101 - asked by the caller
    iteration = task.names.get("iteration", 1)
    scope = {**task.scope, "result": result, "iteration": iteration}
    try:
        if repeat.until and evaluate(repeat.until, scope, path="until") is True:
            return False
    except ExpressionError as error:
        raise UnusableError(_expression("repeat", error)) from error
    if iteration >= repeat.max:
        if not repeat.until:
            return False
        message = f"`until` did not hold after {repeat.max} iterations: {repeat.until}"
        raise UnusableError({"type": "repeat_limit", "message": message, "retryable": False})
    names = {"iteration": iteration + 1, "previous": result if _reads_previous(task) else None}
    try:
        encode(names)
    except ResultError as error:
        raise UnusableError(error.as_dict()) from error
    _park(task.id, task.fence, repeat.delay_s, outcome="repeated", names=names, fresh=True)
    return True


def _reads_previous(task: Claimed) -> bool:
    """Tell whether the result must be kept for the next iteration; it may be large."""
    return "previous" in encode([task.template, task.flow.as_dict()])


def complete_many(reports: Sequence[Report], carried: Collection[int] = ()) -> set[UUID]:
    """Write results in one statement; return the ids of those that were still wanted."""
    row = query(
        work.COMPLETE,
        {
            "ids": [report.id for report in reports],
            "fences": [report.fence for report in reports],
            "results": [report.result for report in reports],
            "refs": [report.reference for report in reports],
            "outputs": [report.outputs for report in reports],
        },
    )[0]
    advance([Ready.of(ready) for ready in row["ready"]], carried)
    tell(
        Aftermath(
            undecided=row["undecided"],
            containers=row["parents"],
            freed=[(project, key) for project, key in row["freed"]],
            ended_runs=row["ended"],
            outcomes=outcomes.completed(row["used"]),
        )
    )
    return {UUID(task_id) for task_id in row["done"]}


def fail(
    task_id: UUID,
    fence: int,
    error: Mapping[str, Any],
    *,
    outcome: str = "failed",
    waiting: bool = False,
) -> bool:
    """Record a failed attempt: retried later by its policy, caught, or final.

    Returns whether the task goes on. `error` is {"type", "message", "retryable"}; `waiting`:
    it may be a wait that failed. Raises ConflictError when the fence is old.
    """
    rows = query(_POLICY, {"id": task_id, "fence": fence, "waiting": waiting})
    if not rows:
        raise ConflictError(REFUSED)
    row = rows[0]
    error = vault.redactor(row["project_id"]).data(error)
    verdict = decide(
        RetryPolicy.from_dict(row["retry"]),
        attempt=row["tries"],
        error=error,
        rng=_rng,
        age_s=row["age_s"] or 0.0,
    )
    goes_on = isinstance(verdict, Retry)
    if isinstance(verdict, Retry):
        _park(task_id, fence, verdict.delay_s, outcome=outcome, error=error)
    else:
        goes_on = give_up(task_id, fence, error, outcome=outcome)
    tell(Aftermath(outcomes=outcomes.failed(row, error, outcome)))
    return goes_on


def give_up(task_id: UUID, fence: int, error: Mapping[str, Any], *, outcome: str) -> bool:
    """Fail a task for good, whatever its retry policy, unless it catches the failure.

    Returns whether it goes on. Raises ConflictError on an old fence.
    """
    task = waiting_task(task_id, fence)
    if catches.catches(task, error):
        return _caught(task, error, outcome)
    if not end_task(
        task_id,
        fence=fence,
        status="failed",
        sources=["running", "waiting"],
        error=error,
        outcome=outcome,
    ):
        raise ConflictError(REFUSED)
    return False


def fail_queued(task_id: UUID, fence: int, error: Mapping[str, Any], *, outcome: str) -> None:
    """Fail a queued task that must not be taken any more; harmless when somebody took it."""
    with transaction.atomic():
        for taken in query(repairs.TAKE_BACK, {"id": task_id, "fence": fence}):
            fail(task_id, taken["fence"], error, outcome=outcome, waiting=True)


def _caught(task: Claimed, error: Mapping[str, Any], outcome: str) -> bool:
    """Let what catches the failure make the result instead."""
    catch = task.flow.catch
    assert catch is not None  # noqa: S101 - asked by the caller
    told = storable(error)
    if catch.capability:
        change = catches.instead(task)
        names = {"error": told, "caught": catches.original(task)}
        _park(
            task.id,
            task.fence,
            0.0,
            outcome=outcome,
            error=error,
            names=names,
            fresh=True,
            change=change,
        )
        return True
    try:
        result = render(catch.result, {**task.scope, "error": told}, path="catch.result")
        with transaction.atomic():
            query(_NOTE_CAUGHT, {"id": task.id, "error": encode(told), "outcome": outcome})
            if not complete_many([prepare(task, result)]):
                raise ConflictError(REFUSED)
    except (ExpressionError, UnusableError) as broken:
        error = {"type": "expression", "message": f"{error.get('message')}; then {broken}"}
        if not end_task(
            task.id,
            fence=task.fence,
            status="failed",
            sources=["running", "waiting"],
            error=error,
            outcome=outcome,
        ):
            raise ConflictError(REFUSED) from None
        return False
    return True


def _park(
    task_id: UUID,
    fence: int,
    delay_s: float,
    *,
    outcome: str,
    error: Mapping[str, Any] | None = None,
    names: Mapping[str, Any] | None = None,
    fresh: bool = False,
    change: Mapping[str, Any] | None = None,
) -> None:
    rows = query(
        work.RETRY,
        {
            "id": task_id,
            "fence": fence,
            "error": None if error is None else encode(storable(error)),
            "delay_s": delay_s,
            "outcome": outcome,
            "names": encode(names or {}),
            "fresh": fresh,
            "change": encode(change or {}),
        },
    )
    if not rows:
        raise ConflictError(REFUSED)
    row = rows[0]
    log.log(
        logging.WARNING if error else logging.DEBUG,
        "task.retrying" if error else "task.repeating",
        task=str(row["id"]),
        run=str(row["run_id"]),
        key=row["key"],
        delay_s=round(delay_s, 3),
        **_brief(error or {}),
    )
    due = [row["id"]] if delay_s <= 0 else []
    freed = [(row["project_id"], row["limit_key"])] if row["limit_key"] else []
    tell(Aftermath(due=due, freed=freed))


def _expression(where: str, error: ExpressionError) -> dict[str, Any]:
    return {"type": "expression", "message": f"{where}: {error}", "retryable": False}


def _brief(error: Mapping[str, Any]) -> dict[str, str]:
    return {"type": str(error.get("type", "")), "error": str(error.get("message", ""))[:300]}


REFUSED = (
    "The report is refused: this attempt is over (it was given to another agent, "
    "cancelled, or reported before)."
)

# Its result is not its own: nothing is taken back, and a re-run begins with the task itself.
_NOTE_CAUGHT = """
WITH caught AS (
  UPDATE tasks_task SET names = names || '{"caught": {}}' WHERE id = %(id)s
  RETURNING id, run_id, project_id, attempt, fence, session_id, started_at),
tried AS (
  INSERT INTO tasks_attempt (task_id, number, fence, outcome, session_id, error, started_at)
  SELECT id, attempt, fence, %(outcome)s, session_id, %(error)s::jsonb, started_at FROM caught)
INSERT INTO opscore_event (project_id, kind, run_id, task_id, actor, data)
SELECT project_id, 'task.caught', run_id, id, '', %(error)s::jsonb FROM caught
"""

# `age_s`: since the first try of this iteration began.
_POLICY = """
SELECT t.retry::json, t.attempt - t.tried_before AS tries, t.status, t.project_id, t.session_id,
       t.started_at, (t.flow->'resources')::json AS resources,
       extract(epoch FROM now() - least(t.started_at, (
         SELECT min(a.started_at) FROM tasks_attempt a
          WHERE a.task_id = t.id AND a.number > t.tried_before)))::float AS age_s
  FROM tasks_task t
 WHERE t.id = %(id)s AND t.fence = %(fence)s
   AND (t.status = 'running' OR %(waiting)s AND t.status = 'waiting')
"""
