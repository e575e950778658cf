"""Deletes what nobody needs any more, in bounded batches."""

from __future__ import annotations

from agents import queues
from opscore.config import load_config
from opscore.database import query
from tasks import broker, messages, steps
from tasks.archive import BY_REFERENCE
from tasks.retention import delete_old_runs

#: Rows that one step deletes at once.
BATCH = 1000

_ANSWERS = """
DELETE FROM opscore_idempotentanswer WHERE id = ANY(ARRAY(
  SELECT id FROM opscore_idempotentanswer
   WHERE created_at < now() - make_interval(hours => %(hours)s)
   ORDER BY created_at LIMIT %(limit)s
     FOR UPDATE SKIP LOCKED))
RETURNING id
"""

# A payload is written just before the report that names it; one that is a day old and that no
# task names belongs to a report that was refused, or to a run that is deleted.
_UNNAMED = " ".join(
    f"AND NOT EXISTS (SELECT FROM tasks_task t WHERE t.{name}_ref = p.id)" for name in BY_REFERENCE
)
_PAYLOADS = f"""
DELETE FROM tasks_payload WHERE id = ANY(ARRAY(
  SELECT p.id FROM tasks_payload p
   WHERE p.created_at < now() - interval '1 day' {_UNNAMED}
   LIMIT %(limit)s
     FOR UPDATE SKIP LOCKED))
RETURNING id
"""  # noqa: S608 - put together from the model's names


_WINDOWS = """
DELETE FROM tasks_ratewindow WHERE id = ANY(ARRAY(
  SELECT id FROM tasks_ratewindow
   WHERE COALESCE(starts[cardinality(starts)], to_timestamp(0))
         < now() - make_interval(secs => per_s) - interval '1 hour'
   LIMIT %(limit)s
     FOR UPDATE SKIP LOCKED))
RETURNING id
"""


# Whoever comes again after that long may as well be bound to another agent.
_STICKY = """
DELETE FROM tasks_sticky WHERE id = ANY(ARRAY(
  SELECT id FROM tasks_sticky WHERE used_at < now() - interval '7 days'
   LIMIT %(limit)s
     FOR UPDATE SKIP LOCKED))
RETURNING id
"""

# Of the last day: what ended before that was seen by an earlier call.
_DEPARTED = """
SELECT DISTINCT s.agent_id FROM agents_agentsession s
 WHERE s.ended_at BETWEEN now() - interval '1 day' AND now() - interval '1 minute'
   AND cardinality(s.queues) > 0
   AND NOT EXISTS (SELECT FROM agents_agentsession o
                    WHERE o.agent_id = s.agent_id AND o.ended_at IS NULL)
"""


def clean_up() -> None:
    """Delete what is old: runs, messages, answers, rate windows, sticky keys, lost payloads.

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


def forget_bindings() -> bool:
    """Delete sticky keys that nobody used for a week; return whether there may be more."""
    return len(query(_STICKY, {"limit": BATCH})) == BATCH


def drop_queues() -> bool:
    """Drop the queues of agents that are gone, with the stale hints in them."""
    broker.drop([queues.own(row["agent_id"]) for row in query(_DEPARTED, {})])
    return False


def expire_messages() -> None:
    """Delete the messages that are done or too old, and tell of those that nobody read."""
    steps.run((messages.delete_done,))


STEPS: tuple[steps.Step, ...] = (
    forget_answers,
    delete_old_runs,
    delete_payloads,
    forget_windows,
    forget_bindings,
    drop_queues,
)
