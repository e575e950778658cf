"""Who writes to a run, and whether they still may: the rules for shared context and messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

from opscore.database import query
from opscore.errors import ConflictError, InvalidError, NotFoundError, Problem, TooLargeError
from tasks.models import Run
from tasks.results import ResultError, encode
from tasks.states import RUN

#: Events about refused reports or writes that are kept for one task.
NOTES_KEPT = 20

# The writer's attempt, if it is still his; empty also for writers without one.
_MINE: LiteralString = """
held AS MATERIALIZED (
  SELECT t.id FROM tasks_task t
   WHERE t.id = %(task)s AND t.fence = %(fence)s AND t.status = 'running'"""

#: The CTE `held`. The lock keeps the attempt from being given away before the write has
#: committed.
HELD: LiteralString = f"{_MINE} FOR SHARE)"

#: The same inside the transaction that records the attempt's result: that one is fenced itself,
#: and a lock would keep the task from everybody until the handler ends.
HELD_BY_RESULT: LiteralString = f"{_MINE})"

#: A condition on the run `r`: it has not ended, and the writer's attempt is not over.
WRITABLE: LiteralString = """
    r.status NOT IN ('completed', 'failed', 'cancelled')
AND (%(task)s::uuid IS NULL OR EXISTS (SELECT FROM held))"""


class AttemptOverError(ConflictError):
    """This attempt is over: it was given to another agent, cancelled, or reported."""

    code = "attempt_over"


@dataclass(frozen=True)
class Writer:
    """Whoever writes: an attempt of a task, or somebody outside with an API key."""

    name: str
    """`agent:<name>` or `key:<name>`; what others see."""
    task_id: UUID | None = None
    fence: int = 0
    with_result: bool = False
    """Whether the write commits together with the attempt's result, or not at all."""

    def params(self) -> dict[str, Any]:
        """Return what HELD and WRITABLE bind."""
        return {"task": self.task_id, "fence": self.fence}


def attempt_writer(project_id: int, task_id: UUID, fence: int) -> Writer | None:
    """Return the agent that holds this attempt; None when the attempt is over."""
    rows = query(_HOLDER, {"project": project_id, "task": task_id, "fence": fence})
    return Writer(f"agent:{rows[0]['name']}", task_id, fence) if rows else None


def refusal(run_id: UUID, writer: Writer, what: str) -> Exception:
    """Return why a write was refused, and keep an event if the writer's attempt is over."""
    run = Run.objects.filter(pk=run_id).first()
    if run is None:
        return NotFoundError(f"There is no run {run_id}.")
    if run.status in RUN.terminal:
        return ConflictError(f"The run is {run.status}; its context and messages are read-only.")
    note_refused(run, writer, what)
    return AttemptOverError()


def note_refused(run: Run, writer: Writer, what: str) -> None:
    """Keep that somebody wrote whose attempt is over; nothing else of the write is kept."""
    data = {"fence": writer.fence, "what": what}
    note("write.refused", run.pk, writer.task_id, actor=writer.name, data=data)


def note(
    kind: str, run_id: UUID, task_id: UUID | None, *, actor: str, data: Mapping[str, Any]
) -> None:
    """Keep an event about something refused, at most NOTES_KEPT of a kind for a task.

    Whoever goes on with an attempt that is over may do so for ever. A task of another run is
    counted as none.
    """
    params = {
        "kind": kind,
        "run": run_id,
        "task": task_id,
        "actor": actor[:100],
        "data": encode(data),
        "kept": NOTES_KEPT,
    }
    query(_NOTE, params)


def encoded(value: Any, field: str, limit: int, setting: str) -> str:
    """Return a value's JSON text. Raises InvalidError, TooLargeError above `limit` bytes."""
    try:
        text = encode(value)
    except ResultError as error:
        if error.type != "result_too_large":
            problem = Problem(str(error).replace("the result", "it"), field)
            raise InvalidError(f"The {field} cannot be kept.", [problem]) from None
        text = ""
    size = len(text.encode())
    if not text or size > limit:
        raise TooLargeError(f"The {field} has more than {limit} bytes as JSON ({setting}).")
    return text


_NOTE = """
WITH about AS (
  SELECT r.id AS run_id, r.project_id, t.id AS task_id
    FROM tasks_run r LEFT JOIN tasks_task t ON t.id = %(task)s AND t.run_id = r.id
   WHERE r.id = %(run)s)
INSERT INTO opscore_event (project_id, kind, run_id, task_id, actor, data)
SELECT project_id, %(kind)s::text, run_id, task_id, %(actor)s::text, %(data)s::jsonb FROM about a
 WHERE CASE WHEN a.task_id IS NULL
            THEN (SELECT count(*) FROM opscore_event e
                   WHERE e.run_id = a.run_id AND e.kind = %(kind)s::text AND e.task_id IS NULL)
            ELSE (SELECT count(*) FROM opscore_event e
                   WHERE e.task_id = a.task_id AND e.kind = %(kind)s::text)
       END < %(kept)s
"""

_HOLDER = """
SELECT a.name FROM tasks_task t
  JOIN agents_agentsession s ON s.id = t.session_id
  JOIN agents_agent a ON a.id = s.agent_id
 WHERE t.id = %(task)s AND t.fence = %(fence)s AND t.status = 'running'
   AND t.project_id = %(project)s
"""
