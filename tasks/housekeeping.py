"""Deletes what nobody needs any more, in bounded batches."""

from __future__ import annotations

from opscore.config import load_config
from opscore.database import query
from tasks import steps
from tasks.archive import BY_REFERENCE
from tasks.retention import delete_old_runs

#: Rows that one step deletes at once.
BATCH = 1000

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


_WINDOWS = """
DELETE FROM tasks_ratewindow WHERE id IN (
  SELECT id FROM tasks_ratewindow
   WHERE COALESCE(starts[cardinality(starts)], to_timestamp(0))
         < now() - make_interval(secs => per_s) - interval '1 hour'
   LIMIT %(limit)s
     FOR UPDATE SKIP LOCKED)
RETURNING id
"""


def clean_up() -> None:
    """Delete old runs, expired answers, payloads without a task and rate windows that have passed.

    Any number of these at once are harmless.
    """
    steps.run(STEPS)


def forget_answers() -> bool:
    """Delete expired answers to idempotency keys; return whether there may be more."""
    hours = load_config().idempotency_ttl_h
    return len(query(_ANSWERS, {"hours": hours, "limit": BATCH})) == BATCH


def delete_payloads() -> bool:
    """Delete payloads that no task names; return whether there may be more."""
    return len(query(_PAYLOADS, {"limit": BATCH})) == BATCH


def forget_windows() -> bool:
    """Delete rate windows without a start that still counts; return whether there may be more."""
    return len(query(_WINDOWS, {"limit": BATCH})) == BATCH


STEPS: tuple[steps.Step, ...] = (
    forget_answers,
    delete_old_runs,
    delete_payloads,
    forget_windows,
)
