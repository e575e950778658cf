"""Does what follows a committed transition; the reconciler calls the same when news got lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from opscore.database import query
from opscore.logs import get_logger
from tasks import control, deciding, epilogue, items, limits, outcomes, subruns
from tasks.aftermath import Aftermath, followed_by
from tasks.claims import expression_failure
from tasks.dispatch import Ready, advance
from tasks.reports import fail_queued
from tasks.signals import run_ended
from tasks.states import RUN
from tasks.transitions import repairs

log = get_logger(__name__)


def follow(news: Aftermath) -> None:
    """Go on with everything that the transition made possible."""
    for task_id in news.due:
        resume(task_id)
    for task_id, fence, error in news.misaddressed:
        fail_queued(task_id, fence, expression_failure(error), outcome="failed")
    deciding.settle(news.undecided)
    for task_id in news.containers:
        items.gather(task_id)
    for project_id, key in news.freed:
        limits.admit(project_id, key)
    for task_id in news.orphaned:
        control.cancel_runs_below(task_id)
    for run in news.ended_runs:
        after_run(run)
    if news.outcomes:
        outcomes.note(news.outcomes)


def resume(task_id: UUID) -> None:
    """Go on at once with a task that was parked without a delay."""
    rows = query(repairs.WAKE, {"id": task_id, "limit": 1})
    advance([Ready.of(row) for row in rows])
    if not rows:
        deciding.go_on(task_id)


def after_run(run: Mapping[str, Any]) -> None:
    """Go on after a run's last sink: its epilogue, or all that waited for its end."""
    if run["status"] not in RUN.terminal:
        epilogue.go_on(run["id"])
        return
    event = f"run.{run['status']}"
    log.info(event, run=str(run["id"]), workflow=run["workflow"])
    if run["parent_task_id"]:
        subruns.report(run["id"])
    if run["limit_key"]:
        control.admit_runs(run["project_id"], run["limit_key"])
    run_ended.send(
        sender=None,
        run_id=run["id"],
        project_id=run["project_id"],
        status=run["status"],
        workflow=run["workflow"],
    )


followed_by(follow)
