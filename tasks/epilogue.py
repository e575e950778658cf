"""What follows when all tasks of a run have ended: `undo` of a failed one, then `finally`."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction

from agents import queues
from opscore.database import Row, query
from opscore.ids import uuid7
from opscore.models import Project
from tasks.aftermath import Aftermath, tell
from tasks.flow import Undo
from tasks.models import Run, Task
from tasks.retries import RetryPolicy
from tasks.transitions import runs

#: Undo tasks are numbered behind everything else of their run.
_FIRST_NUMBER = 2_000_000_000
#: Taking back must not fail for a reason that passes.
_RETRY = RetryPolicy(limit=5, initial_s=1.0, max_s=60.0)

_DONE = """
SELECT id, key, number, flow::json, names::json, priority, reads FROM tasks_task
 WHERE run_id = %(run)s AND phase = 'main' AND status = 'completed' AND flow ? 'undo'
   AND item_count IS NULL AND NOT names ? 'caught'
 ORDER BY completed_at DESC, number DESC
"""
_PENDING = """
SELECT r.id FROM tasks_run r
 WHERE r.status IN ('running', 'cancelling') AND r.epilogue AND (r.open_sinks = 0
    OR r.phase = 'finally' AND EXISTS (
       SELECT FROM tasks_task t WHERE t.run_id = r.id AND t.phase = 'finally'
          AND t.in_degree = 0 AND t.pending > 0
          AND (t.status = 'pending' OR t.waits_for = 'needs')))
   AND NOT (r.status = 'cancelling' AND r.phase = 'main' AND EXISTS (
       SELECT FROM tasks_task t WHERE t.run_id = r.id AND t.phase = 'main'
          AND t.status IN ('pending', 'queued', 'running', 'waiting', 'retrying')))
 LIMIT 100
"""


def go_on(run_id: UUID) -> None:
    """Begin the next phase of a run whose present one has ended; harmless when repeated."""
    run = Run.objects.filter(id=run_id).first()
    if run is None or not run.epilogue:
        return
    if run.phase == "finally" and run.open_sinks:
        _release(run_id)
    elif run.open_sinks == 0:
        _next(run)


def pending() -> list[UUID]:
    """Return the runs whose next phase was not begun."""
    return [row["id"] for row in query(_PENDING, {})]


def _next(run: Run) -> None:
    if run.phase == "main" and _undo(run):
        return
    if run.phase in ("main", "undo") and _finally(run):
        return
    ended = query(runs.FINISH_RUN, {"id": run.id, "phase": run.phase, "status": run.status})
    tell(Aftermath(ended_runs=ended))


def _undo(run: Run) -> bool:
    """Write the undo tasks of a run that did not succeed, last completed first."""
    done = query(_DONE, {"run": run.id}) if run.error or run.status == "cancelling" else []
    if not done:
        return False
    undos = [Undo.from_dict(row["flow"]["undo"]) for row in done]
    project = Project.objects.get(pk=run.project_id)
    with transaction.atomic():
        wanted = [(undo.capability, undo.requires) for undo in undos]
        names = queues.ensure_all(project, wanted)
        tasks = [
            _undo_task(run, row, undo, queue)
            for row, undo, queue in zip(done, undos, names, strict=True)
        ]
        _chain(tasks)
        Task.objects.bulk_create(tasks)
        # The run's row last: task rows come before it.
        if not _move(run, "undo", 1):
            transaction.set_rollback(True)
            return True
        tell(Aftermath(undecided=[tasks[0].id]))
    return True


def _undo_task(run: Run, row: Row, undo: Undo, queue: str) -> Task:
    names = {name: row["names"][name] for name in ("item", "index") if name in row["names"]}
    return Task(
        id=uuid7(),
        project_id=run.project_id,
        run=run,
        key=f"undo {row['key']}",
        capability=undo.capability,
        requires=sorted(set(undo.requires)),
        queue=queue,
        priority=row["priority"],
        retry=_RETRY.as_dict(),
        join="all_done",
        plain=False,
        phase="undo",
        uncarried=True,
        reads=[*row["reads"], row["number"]],
        names={**names, "undo_of": row["key"]},
        inputs=dict(undo.inputs),
    )


def _chain(tasks: Sequence[Task]) -> None:
    """Let each wait for the one before it, however that ends."""
    for place, task in enumerate(tasks):
        task.number = _FIRST_NUMBER + place
        task.in_degree = task.pending = int(place > 0)
        task.is_sink = place == len(tasks) - 1
        task.successors = [] if task.is_sink else [task.number + 1]


def _finally(run: Run) -> bool:
    late = Task.objects.filter(run=run, phase="finally", parent_id=None)
    sinks = late.filter(is_sink=True).count()
    if not sinks:
        return False
    if _move(run, "finally", sinks):
        _release(run.id)
    return True


def _release(run_id: UUID) -> None:
    # A statement of its own: it takes task rows, which come before the run's row.
    rows = query(runs.RELEASE_FINALLY, {"id": run_id})
    tell(Aftermath(undecided=[row["id"] for row in rows]))


def _move(run: Run, phase: str, sinks: int) -> bool:
    params = {"id": run.id, "phase": run.phase, "next": phase, "sinks": sinks, "status": run.status}
    return bool(query(runs.NEXT_PHASE, params))
