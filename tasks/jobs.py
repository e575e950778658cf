"""The Celery functions of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from celery import Task
from celery.exceptions import Ignore, Retry

from opscore.celery import app
from tasks import control, housekeeping, reconcile, stuck
from tasks.canvas import RUN_TASK
from tasks.execution import Outcome, execute


class TaskFailedError(Exception):
    """The task failed; its row holds the reason."""


@app.task(name=RUN_TASK, bind=True, throws=(TaskFailedError,))
def run_task(self: Task[Any, Any], task_id: str, attempt: int, carry: Sequence[int] = ()) -> None:
    """Execute a hint. The exceptions only tell Celery (and Flower) how this message ended."""
    outcome = execute(UUID(task_id), attempt, frozenset(carry))
    if outcome is Outcome.STALE:
        raise Ignore
    if outcome is Outcome.RETRYING:
        # The retry itself waits in the database; no message is sent by this.
        raise Retry("the database wakes it", is_eager=True)
    if outcome is Outcome.FAILED:
        raise TaskFailedError(task_id)


@app.task(name="tasks.reconcile")
def tick() -> None:
    """Repair what was lost: due retries, lost hints, ended sessions, deadlines."""
    reconcile.reconcile()


@app.task(name="tasks.find_stuck")
def find_stuck() -> None:
    """Look for what may not exist: cancel what belongs to nothing, tell of all else."""
    control.cancel_strays(500)
    stuck.find_stuck()


@app.task(name="tasks.expire_messages")
def expire_messages() -> None:
    """Delete messages whose time is over, and tell of them."""
    housekeeping.expire_messages()


@app.task(name="tasks.clean_up")
def clean_up() -> None:
    """Delete what is no longer needed, in bounded batches."""
    housekeeping.clean_up()
