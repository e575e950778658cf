"""Runs that are the body of a task: their end is the end of its wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from opscore.database import query
from opscore.errors import ConflictError
from opscore.models import Project
from tasks.held import Claimed
from tasks.models import Run, Task
from tasks.reports import complete_waiting, fail, waiting_task
from tasks.results import outputs_of
from tasks.states import RUN
from tasks.waits import RefusedError, wait

MAX_DEPTH = 16

# Runs that ended although the task above still waits, and live runs whose task has ended.
_UNREPORTED = """
SELECT r.id FROM tasks_run r JOIN tasks_task t ON t.id = r.parent_task_id
 WHERE t.status = 'waiting' AND t.waits_for = 'run' AND t.names->>'run' = r.id::text
   AND r.status IN ('completed', 'failed', 'cancelled') LIMIT 500
"""
_ORPHANS = """
SELECT r.id FROM tasks_run r JOIN tasks_task t ON t.id = r.parent_task_id
 WHERE r.status IN ('created', 'running', 'paused')
   AND (t.status IN ('completed', 'failed', 'cancelled', 'skipped')
        OR t.names->>'run' IS DISTINCT FROM r.id::text) LIMIT 500
"""


def begin(task: Claimed, depth: int) -> Mapping[str, Any]:
    """Return what a sub-run must know of the task above (its row is locked), for `start_run`.

    Raises RefusedError when runs are nested too deep.
    """
    if depth >= MAX_DEPTH:
        raise RefusedError(f"more than {MAX_DEPTH} runs inside each other", type="too_deep")
    return {
        "project": Project.objects.get(pk=task.project_id),
        "parent_task_id": task.id,
        "depth": depth + 1,
        "priority": task.priority,
        "actor": f"task {task.id}",
        "fairness_key": Run.objects.values_list("fairness_key", flat=True).get(pk=task.run_id),
    }


def attend(task: Claimed, run: Run) -> None:
    """Let the task wait for the end of the run."""
    wait(task.id, "run", names={"run": str(run.id)})


def report(run_id: UUID) -> None:
    """Tell the task above how its run ended; harmless when repeated."""
    run = Run.objects.filter(id=run_id).first()
    if run is None or run.parent_task_id is None or run.status not in RUN.terminal:
        return
    above = Task.objects.filter(
        id=run.parent_task_id, status="waiting", waits_for="run", names__run=str(run.id)
    ).first()
    if above is None:
        return
    try:
        if run.status == "completed":
            complete_waiting(waiting_task(above.id, above.fence), outputs_of(run))
        else:
            fail(above.id, above.fence, _error(run), waiting=True)
    except ConflictError:
        return  # another one reported it meanwhile


def _error(run: Run) -> dict[str, Any]:
    error = run.error or {}
    where = f"run {run.id}" + (f" of {run.workflow}" if run.workflow else "")
    task = f", task {error['task']}" if "task" in error else ""
    return {
        "type": str(error.get("type", run.status)),
        "message": f"{where} {run.status}{task}: {error.get('message', '')}",
    }


def unreported() -> list[UUID]:
    """Return runs whose end the task above has not learned."""
    return [row["id"] for row in query(_UNREPORTED, {})]


def orphans() -> list[UUID]:
    """Return live runs whose task above has ended: they must be cancelled."""
    return [row["id"] for row in query(_ORPHANS, {})]
