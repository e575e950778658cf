"""What operators do to runs and tasks: cancel, pause, resume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from agents import sessions
from opscore.config import load_config
from opscore.database import query
from opscore.errors import ConflictError, NotFoundError
from opscore.logs import get_logger
from opscore.models import Event, Project
from tasks import backlog, deciding, limits
from tasks.aftermath import Aftermath, tell
from tasks.claims import let_go
from tasks.dispatch import Ready, advance
from tasks.endings import end_task
from tasks.models import Pause, Run, Task
from tasks.states import RUN, TASK
from tasks.transitions import repairs, runs, work

log = get_logger(__name__)

_CANCELLABLE = TASK.sources("cancelled")
_LIVE_RUNS = [name for name in RUN.statuses if name not in RUN.terminal]

_CHILDREN = """
SELECT c.id FROM tasks_run c JOIN tasks_task t ON t.id = c.parent_task_id
 WHERE t.run_id = %(id)s AND c.status IN ('created', 'running', 'paused', 'cancelling')
"""


# ------------------------------------------------------------ cancel
def cancel_run(run_id: UUID, actor: str = "", *, force: bool = False) -> None:
    """Cancel a run, all its live tasks and the runs below it.

    Running tasks learn of it and are refused later; whoever does not let go in time is killed.
    What the run declares for its end (`undo`, `finally`) is still done, unless `force`.
    Raises NotFoundError, and ConflictError when the run has ended.
    """
    flagged = query(runs.CANCEL_RUN_FLAG, {"id": run_id, "force": force})
    if not flagged:
        status = _status(run_id)
        if status != "cancelling":
            raise ConflictError(f"The run is {status} already; it cannot be cancelled.")
    finish_cancel(run_id, actor)


def finish_cancel(run_id: UUID, actor: str = "") -> None:
    """Do the second half of a cancel; harmless when repeated."""
    params = {"id": run_id, "actor": actor, "grace_s": load_config().cancel_grace_s}
    row = query(runs.CANCEL_RUN, params)[0]
    tell(
        Aftermath(
            orphaned=row["above"],
            freed=[(project, key) for project, key in row["freed"]],
            ended_runs=row["ended"],
        )
    )


def cancel_runs_below(task_id: UUID) -> None:
    """Cancel the live run that is the body of a task which has ended."""
    below = Run.objects.filter(parent_task_id=task_id, status__in=_LIVE_RUNS)
    for run_id in below.values_list("id", flat=True):
        _quietly(cancel_run, run_id, "the run above")


def cancel_task(task_id: UUID, actor: str = "") -> None:
    """Cancel one task; what depends on it is judged by its join.

    Raises NotFoundError, and ConflictError when the task has ended.
    """
    by = f" by {actor}" if actor else ""
    cancelled = end_task(
        task_id,
        fence=None,
        status="cancelled",
        sources=_CANCELLABLE,
        error={"type": "cancelled", "message": f"The task was cancelled{by}."},
        outcome="cancelled",
        actor=actor,
    )
    if not cancelled:
        status = Task.objects.filter(id=task_id).values_list("status", flat=True).first()
        if status is None:
            raise NotFoundError(f"There is no task {task_id}.")
        raise ConflictError(f"The task is {status} already; it cannot be cancelled.")


def cancel_strays(limit: int) -> bool:
    """Cancel live tasks that belong to nothing any more; return whether there may be more."""
    grace_s = load_config().cancel_grace_s
    rows = query(runs.CANCEL_STRAYS, {"limit": limit, "grace_s": grace_s})
    for row in rows:
        log.warning("task.stray", task=str(row["id"]))
    freed = {(row["project_id"], row["limit_key"]) for row in rows if row["limit_key"]}
    above = [row["id"] for row in rows if row["waits_for"] == "run"]
    tell(Aftermath(freed=sorted(freed), orphaned=above))
    return len(rows) >= limit


def force_cancelled(limit: int) -> bool:
    """Have processes killed that still work on tasks cancelled a grace time ago."""
    rows = query(repairs.NOT_LET_GO, {"limit": limit})
    held = Task.objects.filter(status="running", session_id__isnull=False)
    busy = set(
        held.filter(session_id__in=[row["session_id"] for row in rows]).values_list(
            "session_id", flat=True
        )
    )
    for row in rows:
        # A process that has gone on to its next task is not stuck in this one.
        if row["session_id"] and row["session_id"] not in busy:
            sessions.condemn([row["session_id"]], f"task {row['id']} was cancelled; still at work")
    let_go([row["id"] for row in rows])
    return len(rows) >= limit


def make_room(run_id: UUID) -> None:
    """Cancel a run in favour of a newer one with its concurrency key."""
    _quietly(cancel_run, run_id, "a newer run")


def cancel_orphans(run_ids: list[UUID]) -> None:
    """Cancel runs whose task above has ended."""
    for run_id in run_ids:
        _quietly(cancel_run, run_id, "the run above")


# ------------------------------------------------------------ pause
def pause_run(run_id: UUID, actor: str = "") -> None:
    """Pause a run and the runs below it: what runs goes on, nothing new starts.

    Raises NotFoundError, ConflictError when it neither runs nor is paused.
    """
    if not query(runs.PAUSE_RUN, {"id": run_id}):
        _demand(run_id, "paused")
    backlog.set_aside(run=run_id)
    _note(run_id, "run.paused", actor)
    for child in query(_CHILDREN, {"id": run_id}):
        _quietly(pause_run, child["id"], actor)


def resume_run(run_id: UUID, actor: str = "") -> None:
    """Let a paused run and the runs below it go on at once.

    Raises NotFoundError, ConflictError when it neither runs nor is paused.
    """
    if not query(runs.RESUME_RUN, {"id": run_id}):
        _demand(run_id, "running")
    _note(run_id, "run.resumed", actor)
    kick(run_id=run_id)
    for child in query(_CHILDREN, {"id": run_id}):
        _quietly(resume_run, child["id"], actor)


def kick(*, run_id: UUID | None = None, project_id: int | None = None) -> None:
    """Hint and decide what a run, or a whole project, could not start before."""
    whose = {"run": run_id, "project": project_id}
    query(repairs.QUEUE_ANEW, whose)
    query(repairs.FORGET_HINTS, {**whose, "queues": None})
    rows = query(work.UNDECIDED, {"run": run_id, "limit": 1000})
    deciding.settle([row["id"] for row in rows])
    stale: dict[str, Any] = {
        **whose,
        "limit": 1000,
        "stale_s": load_config().hint_stale_s,
        "held": [],
    }
    advance([Ready.of(row) for row in query(repairs.REHINT, stale)])


def pause(project: Project, workflow: str = "", *, actor: str = "", reason: str = "") -> None:
    """Pause all runs of a workflow, present and future ones; '': the whole project."""
    Pause.objects.get_or_create(
        project=project, workflow=workflow, defaults={"paused_by": actor, "reason": reason}
    )
    backlog.set_aside(project=project.pk)


def resume(project: Project, workflow: str = "") -> None:
    """End such a pause; harmless when there is none."""
    ended, _ = Pause.objects.filter(project=project, workflow=workflow).delete()
    if ended:
        kick(project_id=project.pk)


def admit_runs(project_id: int, key: str) -> None:
    """Start the runs that wait for a concurrency key, as many as may.

    Where the newest one wants the place of the oldest, these are cancelled first.
    """
    for run_id in limits.runs_to_replace(project_id, key):
        make_room(run_id)
    for run in limits.admit_runs(project_id, key):
        kick(run_id=run["id"])


def _quietly(verb: Callable[[UUID, str], None], run_id: UUID, actor: str) -> None:
    try:
        verb(run_id, actor)
    except ConflictError:
        return  # it ended meanwhile


def _demand(run_id: UUID, wanted: str) -> None:
    status = _status(run_id)
    if status != wanted:
        raise ConflictError(f"The run is {status}; it cannot be {_VERB[wanted]}.")


_VERB = {"paused": "paused", "running": "resumed"}


def _status(run_id: UUID) -> str:
    status = Run.objects.filter(id=run_id).values_list("status", flat=True).first()
    if status is None:
        raise NotFoundError(f"There is no run {run_id}.")
    return status


def _note(run_id: UUID, kind: str, actor: str) -> None:
    project_id = Run.objects.values_list("project_id", flat=True).get(id=run_id)
    Event.objects.create(project_id=project_id, kind=kind, run_id=run_id, actor=actor)
