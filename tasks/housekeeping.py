"""Deletes what nobody needs any more, in bounded batches."""

from __future__ import annotations

import time
from collections.abc import Callable

from opscore.config import load_config
from opscore.database import query, release
from opscore.logs import get_logger
from tasks.archive import BY_REFERENCE
from tasks.retention import delete_old_runs

log = get_logger(__name__)

#: Rows that one step deletes at once.
BATCH = 1000
#: One pass ends after this many seconds: the reconciler waits in the same queue.
BUDGET_S = 5.0

_ANSWERS = """
DELETE FROM opscore_idempotentanswer WHERE id IN (
  SELECT id FROM opscore_idempotentanswer
   WHERE created_at < now() - make_interval(hours => %(hours)s)
   ORDER BY created_at LIMIT %(limit)s
     FOR UPDATE SKIP LOCKED)
RETURNING id
"""

# A payload is written just before the report that names it; one that is a day old and that no
# task names belongs to a report that was refused, or to a run that is deleted.
_UNNAMED = " ".join(
    f"AND NOT EXISTS (SELECT FROM tasks_task t WHERE t.{name}_ref = p.id)" for name in BY_REFERENCE
)
_PAYLOADS = f"""
DELETE FROM tasks_payload WHERE id IN (
  SELECT p.id FROM tasks_payload p
   WHERE p.created_at < now() - interval '1 day' {_UNNAMED}
   LIMIT %(limit)s
     FOR UPDATE SKIP LOCKED)
RETURNING id
"""  # noqa: S608 - put together from the model's names


def clean_up() -> None:
    """Delete old runs, expired answers to idempotency keys and payloads without a task.

    Any number of these at once are harmless.
    """
    deadline = time.monotonic() + BUDGET_S
    for step in STEPS:
        try:
            while step() and time.monotonic() < deadline:
                pass
        except Exception:
            # A full disk below the archive must not keep the other rows.
            log.exception("clean_up.step_failed", step=step.__name__)
            release()


def forget_answers() -> bool:
    """Delete expired answers to idempotency keys; return whether there may be more."""
    hours = load_config().idempotency_ttl_h
    return len(query(_ANSWERS, {"hours": hours, "limit": BATCH})) == BATCH


def delete_payloads() -> bool:
    """Delete payloads that no task names; return whether there may be more."""
    return len(query(_PAYLOADS, {"limit": BATCH})) == BATCH


STEPS: tuple[Callable[[], bool], ...] = (forget_answers, delete_old_runs, delete_payloads)
