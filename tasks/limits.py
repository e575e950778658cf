"""Concurrency keys and rate limits: who may start now. Slots are counted from live rows."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction

from opscore.database import Row, after_commit, query
from opscore.errors import ConflictError
from tasks.aftermath import Aftermath, tell
from tasks.endings import end_task
from tasks.expressions import render
from tasks.flow import Concurrency
from tasks.held import Claimed
from tasks.parking import parked
from tasks.transitions import runs
from tasks.waits import RefusedError, queue, wait

# One transaction at a time may judge a key: counting and starting must not interleave.
_LOCK_KEY = "SELECT pg_advisory_xact_lock(%(project)s, hashtext(%(key)s))"

_SET_KEY = "UPDATE tasks_task SET limit_key = %(key)s WHERE id = %(id)s AND limit_key <> %(key)s"

_HOLDERS = """
SELECT id FROM tasks_task
 WHERE project_id = %(project)s AND limit_key = %(key)s AND id <> %(id)s
   AND (status IN ('queued', 'running') OR (status = 'waiting' AND waits_for = 'slot')
        OR (status = 'cancelled' AND lease_until IS NOT NULL))
 ORDER BY id
"""

_WINDOW = """
INSERT INTO tasks_ratewindow (project_id, key, starts, per_s)
VALUES (%(project)s, %(key)s, '{}', %(per_s)s)
ON CONFLICT DO NOTHING
"""

# A start must be `per_s` later than the one that was `limit` starts before it.
_RESERVE = """
WITH w AS (
  SELECT id, starts, greatest(clock_timestamp(),
           CASE WHEN cardinality(starts) >= %(limit)s
                THEN starts[cardinality(starts) - %(limit)s + 1]
                     + make_interval(secs => %(per_s)s) END) AS slot
    FROM tasks_ratewindow WHERE project_id = %(project)s AND key = %(key)s FOR UPDATE)
UPDATE tasks_ratewindow r
   SET per_s = %(per_s)s, starts = (w.starts || w.slot)[greatest(cardinality(w.starts) + 2 - %(limit)s, 1):]
  FROM w WHERE r.id = w.id
RETURNING extract(epoch FROM w.slot - clock_timestamp())::float AS wait_s
"""

_WAITING_KEYS = """
SELECT project_id, limit_key,
       bool_or(flow->'concurrency'->>'on_conflict' = 'cancel_oldest') AS replaces
  FROM tasks_task
 WHERE status = 'waiting' AND waits_for = 'slot' GROUP BY project_id, limit_key LIMIT 500
"""
_WAITING_RUN_KEYS = """
SELECT DISTINCT project_id, limit_key FROM tasks_run
 WHERE status = 'created' AND limit_key <> '' LIMIT 500
"""
_REPLACEABLE_TASKS = """
SELECT id, status, flow->'concurrency'->>'on_conflict' AS policy,
       (flow->'concurrency'->>'limit')::int AS places
  FROM tasks_task
 WHERE project_id = %(project)s AND limit_key = %(key)s
   AND (status IN ('queued', 'running') OR status = 'waiting' AND waits_for = 'slot')
 ORDER BY id
"""
_NEWEST_RUN = """
SELECT status, concurrency->>'on_conflict' AS policy FROM tasks_run
 WHERE project_id = %(project)s AND limit_key = %(key)s
   AND status IN ('created', 'running', 'paused') ORDER BY id DESC LIMIT 1
"""
_REPLACEABLE = """
SELECT id, (concurrency->>'limit')::int AS places FROM tasks_run
 WHERE project_id = %(project)s AND limit_key = %(key)s
   AND status IN ('created', 'running', 'paused') ORDER BY id
"""
_LIVE_RUNS = """
SELECT id FROM tasks_run
 WHERE project_id = %(project)s AND limit_key = %(key)s AND id <> %(id)s
   AND status IN ('created', 'running', 'paused', 'cancelling')
 ORDER BY id
"""


def admitted(task: Claimed, *, in_rate: bool) -> bool:
    """Tell whether a task whose row is locked may be queued now; else it waits for its turn.

    Raises RefusedError when its key is taken and it does not want to wait.
    """
    rate = task.flow.rate_limit
    if rate and not in_rate:
        key = str(render(rate.key, task.scope))
        wait_s = reserve(task.project_id, key, rate.limit, rate.per_s)
        if wait_s > 0:
            wait(task.id, "rate", wake_s=wait_s, names={"rate": key})
            return False
    if task.flow.concurrency:
        _want_slot(task, task.flow.concurrency)
        return False
    return True


def reserve(project_id: int, key: str, limit: int, per_s: float) -> float:
    """Reserve the next start under a rate limit; return the seconds until it (0 or less: now).

    A sliding window: at most `limit` starts in any `per_s` seconds.
    """
    params = {"project": project_id, "key": key[:300], "limit": limit, "per_s": per_s}
    query(_WINDOW, {"project": project_id, "key": key[:300], "per_s": per_s})
    wait_s: float = query(_RESERVE, params)[0]["wait_s"]
    return wait_s


def _want_slot(task: Claimed, limit: Concurrency) -> None:
    key = str(render(limit.key, task.scope))[:300]
    if not key:
        raise RefusedError("the concurrency key is empty", type="concurrency")
    place = {"project": task.project_id, "key": key}
    query(_LOCK_KEY, place)
    holders: list[Row] = []
    if limit.on_conflict != "queue":
        holders = query(_HOLDERS, {**place, "id": task.id})
    if limit.on_conflict == "reject" and len(holders) >= limit.limit:
        message = f"{len(holders)} others have the concurrency key {key!r}, at most {limit.limit}"
        raise RefusedError(message, type="concurrency")
    query(_SET_KEY, {"key": key, "id": task.id})
    wait(task.id, "slot")
    if limit.on_conflict == "cancel_oldest":
        oldest = [row["id"] for row in holders[: max(len(holders) - limit.limit + 1, 0)]]
        after_commit(lambda: _make_room(oldest, key))
    tell(Aftermath(freed=[(task.project_id, key)]))


def _make_room(task_ids: list[UUID], key: str) -> None:
    for task_id in task_ids:
        end_task(
            task_id,
            fence=None,
            status="cancelled",
            sources=["queued", "running", "waiting", "retrying"],
            error={
                "type": "cancelled",
                "message": f"A newer task took the concurrency key {key!r}.",
            },
            outcome="cancelled",
        )


def admit(project_id: int, key: str) -> None:
    """Queue the tasks that wait for a slot of this key, as many as are free."""
    place = {"project": project_id, "key": key}
    while True:
        with transaction.atomic():
            query(_LOCK_KEY, place)
            found = query(runs.ADMISSIBLE_TASK, place)
            if not found:
                return
            task = found[0]
            if not parked(task["id"], project_id, task["resources"] or (), let_through=True):
                queue(task["id"])


def admit_runs(project_id: int, key: str) -> list[Row]:
    """Start the runs that wait for this key, as many as are free; return them."""
    started: list[Row] = []
    place = {"project": project_id, "key": key}
    while True:
        with transaction.atomic():
            query(_LOCK_KEY, place)
            found = query(runs.ADMIT_RUN, place)
        if not found:
            return started
        started += found


def refuse_run(project_id: int, run_id: UUID, limit: Concurrency, key: str) -> None:
    """Raise ConflictError when a new run (already written) may neither start nor wait.

    Locks the key until the open transaction ends.
    """
    place = {"project": project_id, "key": key}
    query(_LOCK_KEY, place)
    if limit.on_conflict != "reject":
        return
    others = query(_LIVE_RUNS, {**place, "id": run_id})
    if len(others) >= limit.limit:
        raise ConflictError(
            f"{len(others)} runs have the concurrency key {key!r}, at most {limit.limit} may."
        )


def runs_to_replace(project_id: int, key: str) -> list[UUID]:
    """Return the oldest live runs of a key that must make room for newer ones."""
    place = {"project": project_id, "key": key}
    newest = query(_NEWEST_RUN, place)
    if not newest or (newest[0]["status"], newest[0]["policy"]) != ("created", "cancel_oldest"):
        return []
    rows = query(_REPLACEABLE, place)
    places = (rows[-1]["places"] or 1) if rows else 1
    return [row["id"] for row in rows[: max(len(rows) - places, 0)]]


def admit_all() -> None:
    """Admit whatever waits for a slot that is free: the news of it was lost."""
    for row in query(_WAITING_KEYS, {}):
        if row["replaces"]:
            _make_room(_tasks_to_replace(row["project_id"], row["limit_key"]), row["limit_key"])
        admit(row["project_id"], row["limit_key"])


def _tasks_to_replace(project_id: int, key: str) -> list[UUID]:
    rows = query(_REPLACEABLE_TASKS, {"project": project_id, "key": key})
    newest = rows[-1] if rows else None
    if newest is None or newest["status"] != "waiting" or newest["policy"] != "cancel_oldest":
        return []
    return [row["id"] for row in rows[: max(len(rows) - (newest["places"] or 1), 0)]]


def waiting_run_keys() -> list[tuple[int, str]]:
    """Return the (project, key) of every run that waits for a place."""
    return [(row["project_id"], row["limit_key"]) for row in query(_WAITING_RUN_KEYS, {})]
