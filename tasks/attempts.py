"""Every try of tasks: those that did not complete, which have rows, and the present or last one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from agents.models import Agent, AgentSession
from tasks.models import Attempt, Task

#: Statuses of a task whose own row tells of a try that no other row tells of.
_TOLD_BY_TASK = ("running", "completed")


@dataclass(frozen=True)
class Try:
    """One try of one task."""

    task_id: UUID
    number: int
    outcome: str
    agent: Agent | None
    session_id: UUID | None
    error: Any
    started_at: datetime | None
    ended_at: datetime | None


def tries_of(tasks: Collection[Task]) -> dict[UUID, list[Try]]:
    """Return the tries of each task, oldest first, in two queries."""
    by_task: dict[UUID, list[Attempt]] = {task.pk: [] for task in tasks}
    for row in Attempt.objects.filter(task__in=list(by_task)).order_by("id"):
        by_task[row.task_id].append(row)
    wanted = {row.session_id for rows in by_task.values() for row in rows}
    agents = _agents(wanted | {task.session_id for task in tasks})
    return {task.pk: [*_rows(by_task[task.pk], agents), *_present(task, agents)] for task in tasks}


def _agents(sessions: Collection[UUID | None]) -> dict[UUID | None, Agent]:
    known = [session for session in sessions if session]
    found = AgentSession.objects.filter(pk__in=known).select_related("agent") if known else ()
    return {session.pk: session.agent for session in found}


def _rows(rows: list[Attempt], agents: dict[UUID | None, Agent]) -> Iterator[Try]:
    for row in rows:
        yield Try(
            row.task_id,
            row.number,
            row.outcome,
            agents.get(row.session_id),
            row.session_id,
            row.error,
            row.started_at,
            row.ended_at,
        )


def _present(task: Task, agents: dict[UUID | None, Agent]) -> Iterator[Try]:
    if task.status in _TOLD_BY_TASK and task.started_at:
        yield Try(
            task.pk,
            task.attempt,
            task.status,
            agents.get(task.session_id),
            task.session_id,
            None,
            task.started_at,
            task.completed_at,
        )
