"""What happens to a whole run, or to the items of a list: cancel, pause, admission, phases."""

from __future__ import annotations

from typing import LiteralString

from tasks.transitions.fragments import ENDED, LIVE, READY_OF_MADE, RUNNABLE, VERDICT

#: First half of a cancel, in a transaction of its own: from here on nothing is claimed. A run that
#: is cancelled by force has no epilogue any more.
CANCEL_RUN_FLAG: LiteralString = """
UPDATE tasks_run SET status = 'cancelling', epilogue = epilogue AND NOT %(force)s
 WHERE id = %(id)s AND (status IN ('created', 'running', 'paused')
                        OR status = 'cancelling' AND %(force)s)
RETURNING id
"""

#: Second half: every live task, then the run; one with an epilogue keeps the tasks of that, and
#: goes on with it. Repeatable, so the reconciler can finish it.
CANCEL_RUN: LiteralString = f"""
WITH held AS MATERIALIZED (
  SELECT t.id, t.session_id, t.status, t.waits_for FROM tasks_task t
    JOIN tasks_run r ON r.id = t.run_id AND r.status = 'cancelling'
   WHERE t.run_id = %(id)s AND (t.phase = 'main' OR NOT r.epilogue) AND t.status IN {LIVE}
   ORDER BY t.number
     FOR NO KEY UPDATE OF t),
cancelled AS (
  UPDATE tasks_task t
     SET status = 'cancelled', fence = t.fence + 1, wake_at = NULL, waits_for = '',
         completed_at = clock_timestamp(),
         lease_until = CASE WHEN held.status = 'running'
                            THEN clock_timestamp() + make_interval(secs => %(grace_s)s) END
    FROM held WHERE t.id = held.id AND t.status IN {LIVE}
  RETURNING t.id, t.project_id, t.attempt, t.fence, t.started_at, t.limit_key, held.session_id,
            held.status AS was, held.waits_for AS waited_for),
tried AS (
  INSERT INTO tasks_attempt (task_id, number, fence, outcome, session_id, error, started_at)
  SELECT id, attempt, fence - 1, 'cancelled', session_id, NULL, started_at
    FROM cancelled WHERE was = 'running'),
ended AS (
  UPDATE tasks_run r
     SET open_sinks = 0,
         status = CASE WHEN r.epilogue THEN r.status ELSE 'cancelled' END,
         completed_at = CASE WHEN r.epilogue THEN NULL ELSE clock_timestamp() END,
         error = COALESCE(r.error, '{{"type": "cancelled", "message": "The run was cancelled."}}')
   WHERE r.id = %(id)s AND r.status = 'cancelling' AND (r.phase = 'main' OR NOT r.epilogue)
     AND (SELECT count(*) FROM cancelled) >= 0
  RETURNING {ENDED}),
noted AS (
  INSERT INTO opscore_event (project_id, kind, run_id, actor, data)
  SELECT project_id, 'run.cancelled', id, %(actor)s,
         jsonb_build_object('tasks', (SELECT count(*) FROM cancelled)) FROM ended
   WHERE NOT EXISTS (SELECT FROM opscore_event
                      WHERE run_id = %(id)s AND kind = 'run.cancelled'))
SELECT (SELECT COALESCE(json_agg(ended), '[]') FROM ended) AS ended,
       (SELECT COALESCE(json_agg(id), '[]') FROM cancelled WHERE waited_for = 'run') AS above,
       (SELECT COALESCE(json_agg(DISTINCT jsonb_build_array(project_id, limit_key)), '[]')
          FROM cancelled WHERE limit_key <> '') AS freed
"""

#: Runs whose cancel was cut short after its first half.
HALF_CANCELLED: LiteralString = """
SELECT id FROM tasks_run
 WHERE status = 'cancelling' AND (phase = 'main' OR NOT epilogue) LIMIT 100
"""

#: Pauses and resumes a run; what runs goes on, nothing new is claimed meanwhile.
PAUSE_RUN: LiteralString = f"""
UPDATE tasks_run r SET status = 'paused' WHERE id = %(id)s AND status = 'running'
RETURNING {ENDED}
"""

RESUME_RUN: LiteralString = f"""
UPDATE tasks_run r SET status = 'running' WHERE id = %(id)s AND status = 'paused'
RETURNING {ENDED}
"""

#: The next run that waits for a place under its concurrency key, if one is free: the most urgent
#: and oldest. The key's advisory lock is held by the caller.
ADMIT_RUN: LiteralString = f"""
WITH live AS (
  SELECT count(*) AS n FROM tasks_run
   WHERE project_id = %(project)s AND limit_key = %(key)s
     AND status IN ('running', 'paused', 'cancelling')),
next AS (
  SELECT r.id FROM tasks_run r, live
   WHERE r.project_id = %(project)s AND r.limit_key = %(key)s AND r.status = 'created'
     AND live.n < COALESCE((r.concurrency->>'limit')::int, 1)
     AND NOT EXISTS (SELECT FROM tasks_task a JOIN tasks_run above ON above.id = a.run_id
                      WHERE a.id = r.parent_task_id AND above.status = 'paused')
   ORDER BY r.priority DESC, r.id LIMIT 1)
UPDATE tasks_run r SET status = 'running' FROM next
 WHERE r.id = next.id AND r.status = 'created'
RETURNING {ENDED}
"""

#: As ADMIT_RUN, for tasks; slots are counted from the rows that hold them, never kept. A locked
#: row is left to whoever holds it: waiting for it under the key's lock could close a circle.
ADMISSIBLE_TASK: LiteralString = f"""
WITH live AS (
  SELECT count(*) AS n FROM tasks_task
   WHERE project_id = %(project)s AND limit_key = %(key)s
     AND (status IN ('queued', 'running') OR status = 'cancelled' AND lease_until IS NOT NULL))
SELECT t.id, (t.flow->'resources')::json AS resources
  FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id, live
 WHERE t.project_id = %(project)s AND t.limit_key = %(key)s
   AND t.status = 'waiting' AND t.waits_for = 'slot'
   AND {RUNNABLE}
   AND live.n < COALESCE((t.flow->'concurrency'->>'limit')::int, 1)
 ORDER BY t.priority DESC, t.ready_at, t.id LIMIT 1
   FOR NO KEY UPDATE OF t SKIP LOCKED
"""

#: Moves a run that has an epilogue to its next phase, once: the old phase is the guard.
NEXT_PHASE: LiteralString = """
UPDATE tasks_run SET phase = %(next)s::text, open_sinks = %(sinks)s
 WHERE id = %(id)s AND phase = %(phase)s AND open_sinks = 0
   AND status = %(status)s
RETURNING id
"""

#: Lets the tasks of `finally` go: the first ones waited for the phase instead of a task.
RELEASE_FINALLY: LiteralString = """
WITH held AS (
  SELECT id FROM tasks_task
   WHERE run_id = %(id)s AND phase = 'finally' AND in_degree = 0 AND pending > 0
     AND (status = 'pending' OR waits_for = 'needs')
   ORDER BY number FOR NO KEY UPDATE)
UPDATE tasks_task t SET pending = 0 FROM held WHERE t.id = held.id
RETURNING t.id
"""

#: The end of a run with an epilogue.
FINISH_RUN: LiteralString = f"""
UPDATE tasks_run r
   SET phase = 'done', completed_at = clock_timestamp(),
       status = CASE WHEN r.status = 'cancelling' THEN 'cancelled' ELSE {VERDICT} END
  FROM (SELECT NULL::jsonb AS error) s
 WHERE r.id = %(id)s AND r.phase = %(phase)s AND r.open_sinks = 0
   AND r.status = %(status)s
RETURNING {ENDED}
"""

#: The items of a for_each task from `first` on, as rows: like it in everything but what made it
#: one. Direct ones are queued at once.
ADD_ITEMS: LiteralString = f"""
WITH made AS (
  INSERT INTO tasks_task (
         id, project_id, run_id, number, key, uses, capability, requires, queue, priority, status,
         attempt, losses, retry, tried_before, timeout_s, heartbeat_s, queue_timeout_s, fence,
         "join", pending, needs_failed, needs_skipped, in_degree, successors, is_sink, plain,
         direct, phase, flow, names, waits_for, limit_key, parent_id, item_index, next_item,
         reads, uncarried, inputs, outputs_template, ready_at, hinted_at, hints)
  SELECT x.id, c.project_id, c.run_id, (c.number + 1) * 100000 + x.index,
         c.key || '[' || x.index || ']', c.uses, c.capability, c.requires, c.queue, c.priority,
         CASE WHEN c.direct THEN 'queued' ELSE 'pending' END,
         1, 0, c.retry, 0, c.timeout_s, c.heartbeat_s, c.queue_timeout_s, 0,
         'all_success', 0, 0, 0, 0, '{{}}', false, c.direct, c.direct, c.phase,
         c.flow - 'condition' - 'for_each' - 'max_parallel' - 'on_item_failure',
         jsonb_build_object('item', x.item, 'index', x.index), '', '', c.id, x.index, 0,
         %(reads)s::int[], true, c.inputs, NULL, clock_timestamp(), now(), 0
    FROM tasks_task c, jsonb_to_recordset(%(items)s::jsonb) AS x(id uuid, index int, item jsonb)
   WHERE c.id = %(id)s
  RETURNING *),
moved AS (
  UPDATE tasks_task t SET next_item = t.next_item + (SELECT count(*) FROM made)
   WHERE t.id = %(id)s)
SELECT {READY_OF_MADE}, m.status FROM made m ORDER BY m.number
"""

#: A for_each task with its list, locked, while it waits for its items.
CONTAINER: LiteralString = """
SELECT t.id, t.run_id, t.project_id, t.key, t.fence, t.flow::json, t.item_count, t.next_item,
       t.items_ref, t.inputs::json, t.reads
  FROM tasks_task t
 WHERE t.id = %(id)s AND t.status = 'waiting' AND t.waits_for = 'items'
   FOR NO KEY UPDATE
"""

#: Cancels the open items of a for_each task (whose row is locked): it has ended.
CANCEL_ITEMS: LiteralString = f"""
WITH held AS (
  SELECT id, status, waits_for FROM tasks_task
   WHERE parent_id = %(id)s AND status IN {LIVE} ORDER BY number FOR NO KEY UPDATE),
cancelled AS (
  UPDATE tasks_task t
     SET status = 'cancelled', fence = t.fence + 1, wake_at = NULL, waits_for = '',
         completed_at = clock_timestamp(),
         error = '{{"type": "cancelled", "message": "Its list has ended."}}',
         lease_until = CASE WHEN held.status = 'running'
                            THEN clock_timestamp() + make_interval(secs => %(grace_s)s) END
    FROM held WHERE t.id = held.id
  RETURNING t.id, t.project_id, t.limit_key, held.waits_for, t.attempt, t.fence, t.session_id,
            t.started_at, t.error, held.status AS was),
tried AS (
  INSERT INTO tasks_attempt (task_id, number, fence, outcome, session_id, error, started_at)
  SELECT id, attempt, fence - 1, 'cancelled', session_id, error, started_at
    FROM cancelled WHERE was = 'running')
SELECT id, project_id, limit_key, waits_for FROM cancelled
"""

#: Keeps the list of a for_each task, whose row is locked.
KEEP_ITEMS: LiteralString = """
UPDATE tasks_task SET items = %(items)s::jsonb, items_ref = %(ref)s, item_count = %(count)s
 WHERE id = %(id)s
"""

#: Cancels live tasks that belong to nothing: items of a list that has ended, tasks of a run that
#: has. Nobody waits for them, so nothing is told.
CANCEL_STRAYS: LiteralString = f"""
WITH stray AS (
  SELECT t.id FROM tasks_task t JOIN tasks_task p ON p.id = t.parent_id
   WHERE t.parent_id IS NOT NULL
     AND t.status NOT IN ('completed', 'failed', 'cancelled', 'skipped')
     AND p.status IN ('completed', 'failed', 'cancelled', 'skipped')
   UNION
  SELECT t.id FROM tasks_run r JOIN tasks_task t ON t.run_id = r.id
   WHERE r.completed_at > now() - interval '10 minutes'
     AND r.status IN ('completed', 'failed', 'cancelled') AND t.status IN {LIVE}
   LIMIT %(limit)s),
held AS (
  SELECT t.id, t.status, t.waits_for FROM tasks_task t JOIN stray USING (id)
   WHERE t.status IN {LIVE} ORDER BY t.run_id, t.number FOR NO KEY UPDATE OF t SKIP LOCKED)
UPDATE tasks_task t
   SET status = 'cancelled', fence = t.fence + 1, wake_at = NULL, waits_for = '',
       completed_at = clock_timestamp(),
       error = '{{"type": "cancelled", "message": "What it belonged to has ended."}}',
       lease_until = CASE WHEN held.status = 'running'
                          THEN clock_timestamp() + make_interval(secs => %(grace_s)s) END
  FROM held WHERE t.id = held.id
RETURNING t.id, t.project_id, t.limit_key, held.waits_for
"""
