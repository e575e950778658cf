"""Deletes old slots of schedules, in bounded batches."""

from __future__ import annotations

from django.db import transaction

from opscore.config import load_config
from opscore.database import query
from tasks import steps

#: Slots that one step deletes at once.
BATCH = 1000

_OLD = """
SELECT id, schedule_id FROM workflows_slot
 WHERE NOT live AND outcome <> 'pending'
   AND decided_at < now() - %(days)s * interval '1 day'
"""

# The schedules first, as everybody locks them; NO KEY: their names stay what they are.
_LOCK = f"""
SELECT id FROM workflows_schedule
 WHERE id IN (SELECT schedule_id FROM ({_OLD} ORDER BY decided_at LIMIT %(limit)s) old)
   FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608 - our own statement

# A slot that has a run and no row any more could be filled a second time: the schedule
# remembers how far that goes.
_FORGET = f"""
WITH gone AS (
  DELETE FROM workflows_slot WHERE id IN (
    SELECT id FROM ({_OLD} AND schedule_id = ANY(%(schedules)s)
                     ORDER BY decided_at LIMIT %(limit)s) old)
  RETURNING id, schedule_id, at, cause, outcome),
marks AS (
  UPDATE workflows_schedule s SET forgotten_to = GREATEST(s.forgotten_to, m.at)
    FROM (SELECT schedule_id, max(at) AS at FROM gone
           WHERE outcome = 'started' AND cause <> 'manual' GROUP BY schedule_id) m
   WHERE s.id = m.schedule_id)
SELECT id FROM gone
"""  # noqa: S608 - our own statement


def clean_up() -> None:
    """Delete old slots. Any number of these at once are harmless."""
    steps.run((forget_slots,))


def forget_slots() -> bool:
    """Delete one batch of slots that ended long ago; return whether there may be more.

    They are kept as long as the runs that are kept longest. None of them can fire again.
    """
    config = load_config()
    days = (config.retention_days, config.retention_failed_days)
    if not all(days):
        return False  # runs of some kind are kept for ever
    given = {"days": max(days), "limit": BATCH}
    with transaction.atomic():
        schedules = [row["id"] for row in query(_LOCK, given)]
        return len(query(_FORGET, {**given, "schedules": schedules})) == BATCH
