"""The way of a task: claimed, reported, decided, waiting, tried again."""

from __future__ import annotations

from typing import LiteralString

from tasks.transitions.fragments import (
    CLAIM_SET,
    CLAIMED,
    END_RUN,
    ENDED,
    HINTED,
    LEFT,
    MAY_HAVE,
    PLACES_LEFT,
    REACH,
    READY,
    RUNNABLE,
    SHUT_OFF,
)
from tasks.transitions.turns import EXCHANGE, FAIR

#: A hint says: task, attempt. No row: stale, taken, paused, cancelled, or the session has ended.
CLAIM: LiteralString = f"""
UPDATE tasks_task t {CLAIM_SET}
  FROM tasks_run r
 WHERE t.id = %(id)s AND t.attempt = %(attempt)s AND t.status = 'queued'
   AND r.id = t.run_id AND {RUNNABLE} AND NOT {SHUT_OFF}
   AND EXISTS (SELECT FROM agents_agentsession s
                 JOIN agents_agent a ON a.id = s.agent_id AND NOT a.paused AND {MAY_HAVE}
                  AND COALESCE({PLACES_LEFT}, 1) > 0
                WHERE s.id = %(session)s AND s.ended_at IS NULL AND s.condemned = '')
RETURNING {CLAIMED}, {LEFT} AS hints_left
"""

#: What a polling agent may have: its capabilities, its labels; of each queue what is hinted
#: already, then what is held back in its order. `bare` are the queues of its capabilities without
#: labels. `reach` beyond the limit leaves room for others who take the same at the same time.
POLL: LiteralString = f"""
WITH able AS (
  SELECT DISTINCT q.name AS queue, a.id, s.project_id, a.capabilities, a.labels, %(reach)s AS reach
    FROM agents_agentsession s
    JOIN agents_agent a ON a.id = s.agent_id AND a.desired = 'running' AND NOT a.paused
     AND a.status <> 'draining' AND COALESCE({PLACES_LEFT}, 1) > 0, LATERAL (
      SELECT unnest(%(bare)s::text[]) AS name
       UNION
      SELECT q.name FROM agents_queue q
       WHERE q.project_id = s.project_id AND q.capability = ANY(a.capabilities)
         AND q.labels <@ a.labels) q
   WHERE s.id = %(session)s AND s.ended_at IS NULL AND s.condemned = ''),
hinted AS (
  SELECT h.id, h.priority, h.ready_at, a.queue
    FROM able a, LATERAL (
      SELECT t.id, t.priority, t.ready_at FROM tasks_task t
       WHERE t.queue = a.queue AND {HINTED.format("t")} AND {MAY_HAVE}
         AND EXISTS (SELECT FROM tasks_run r WHERE r.id = t.run_id AND {RUNNABLE} OFFSET 0)
       ORDER BY t.priority DESC, t.ready_at LIMIT a.reach) h),
{FAIR},
line AS (
  SELECT id, priority, ready_at,
         row_number() OVER (PARTITION BY queue, priority
                            ORDER BY held, turn, since) AS place
    FROM (SELECT id, priority, ready_at, queue, false AS held, 0 AS turn, ready_at AS since
            FROM hinted
           UNION ALL
          SELECT id, priority, ready_at, queue, true, turn, since FROM fair) found),
pick AS MATERIALIZED (
  SELECT t.id FROM line l JOIN tasks_task t ON t.id = l.id
   WHERE t.status = 'queued' AND NOT {SHUT_OFF}
   ORDER BY l.priority DESC, l.place, l.ready_at
   LIMIT least(%(limit)s, (
         SELECT greatest({PLACES_LEFT}, 0) FROM agents_agentsession s
           JOIN agents_agent a ON a.id = s.agent_id WHERE s.id = %(session)s AND a.places >= 0))
     FOR NO KEY UPDATE OF t SKIP LOCKED),
{EXCHANGE},
claimed AS (
  UPDATE tasks_task t {CLAIM_SET}
    FROM tasks_run r
   WHERE t.id IN (SELECT id FROM pick) AND t.status = 'queued' AND r.id = t.run_id
  RETURNING {CLAIMED})
SELECT claimed.* FROM claimed JOIN line USING (id)
 ORDER BY line.priority DESC, line.place, line.ready_at
"""

#: The attempt that a fence holds; a waiting task is held by the platform itself.
HELD: LiteralString = f"""
SELECT {CLAIMED}
  FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id
 WHERE t.id = %(id)s AND t.fence = %(fence)s
   AND (t.status = 'running' OR %(waiting)s AND t.status = 'waiting')
"""

#: A sign of life of an attempt; no row: stop work, it is over.
BEAT: LiteralString = """
UPDATE tasks_task
   SET lease_until = CASE WHEN heartbeat_s IS NULL THEN lease_until ELSE
         least(started_at + make_interval(secs => timeout_s),
               clock_timestamp() + make_interval(secs => heartbeat_s)) END
 WHERE id = %(id)s AND fence = %(fence)s AND status = 'running'
RETURNING id
"""

#: Records results and releases successors, for one report or many. A report whose fence is old
#: changes nothing and is missing in `done`. What only `tasks.deciding` can release comes back in
#: `undecided`.
COMPLETE: LiteralString = f"""
WITH report AS (
  SELECT * FROM unnest(%(ids)s::uuid[], %(fences)s::int[], %(results)s::jsonb[],
                       %(refs)s::uuid[], %(outputs)s::jsonb[])
             AS x(id, fence, result, result_ref, outputs)),
mine AS (SELECT t.run_id, t.number, t.successors FROM tasks_task t JOIN report USING (id)),
held AS MATERIALIZED (
  SELECT t.id, t.fence, t.status
    FROM tasks_task t
    JOIN (SELECT run_id, number FROM mine
           UNION SELECT run_id, unnest(successors) FROM mine) w
      ON w.run_id = t.run_id AND w.number = t.number
   ORDER BY t.run_id, t.number
     FOR NO KEY UPDATE OF t),
done AS (
  UPDATE tasks_task t
     SET status = 'completed', result = x.result, result_ref = x.result_ref,
         outputs = x.outputs, error = NULL, lease_until = NULL, wake_at = NULL, waits_for = '',
         completed_at = clock_timestamp()
    FROM report x
    JOIN held h ON h.id = x.id AND h.fence = x.fence AND h.status IN ('running', 'waiting')
   WHERE t.id = h.id
  RETURNING t.id, t.run_id, t.project_id, t.successors, t.is_sink, t.parent_id, t.limit_key,
            t.session_id, t.started_at, t.flow->'resources' AS resources),
drops AS (
  SELECT run_id, number, count(*)::int AS n
    FROM (SELECT run_id, unnest(successors) AS number FROM done) d GROUP BY run_id, number),
released AS (
  UPDATE tasks_task t
     SET pending = t.pending - d.n,
         status = CASE WHEN t.pending = d.n AND t.plain AND t.status = 'pending'
                        AND t.needs_failed + t.needs_skipped = 0
                       THEN 'queued' ELSE t.status END,
         ready_at = CASE WHEN t.pending = d.n AND t.status = 'pending'
                         THEN clock_timestamp() ELSE t.ready_at END,
         hinted_at = CASE WHEN t.pending = d.n AND t.status = 'pending'
                          THEN now() ELSE t.hinted_at END
    FROM drops d
   WHERE t.run_id = d.run_id AND t.number = d.number
  RETURNING {READY}, t.status, t.pending, t.join, t.plain,
            t.waits_for),
sinks AS (
  SELECT run_id, count(*)::int AS n, NULL::jsonb AS error
    FROM done WHERE is_sink GROUP BY run_id),
runs_held AS MATERIALIZED (
  SELECT id FROM tasks_run WHERE id IN (SELECT run_id FROM sinks)
   ORDER BY id FOR NO KEY UPDATE),
ended AS (
  UPDATE tasks_run r SET {END_RUN}
    FROM sinks s JOIN runs_held h ON h.id = s.run_id
   WHERE r.id = s.run_id
  RETURNING {ENDED})
SELECT (SELECT COALESCE(json_agg(id), '[]') FROM done) AS done,
       (SELECT COALESCE(json_agg(released), '[]') FROM released
         WHERE pending = 0 AND status = 'queued' AND plain) AS ready,
       (SELECT COALESCE(json_agg(json_build_array(project_id, session_id, resources, started_at)),
                        '[]') FROM done WHERE session_id IS NOT NULL) AS used,
       (SELECT COALESCE(json_agg(id), '[]') FROM released
         WHERE status = 'pending' AND (pending = 0 OR "join" = 'any')
            OR waits_for = 'needs' AND pending = 0) AS undecided,
       (SELECT COALESCE(json_agg(DISTINCT parent_id), '[]') FROM done
         WHERE parent_id IS NOT NULL) AS parents,
       (SELECT COALESCE(json_agg(DISTINCT jsonb_build_array(project_id, limit_key)), '[]')
          FROM done WHERE limit_key <> '') AS freed,
       (SELECT COALESCE(json_agg(ended), '[]') FROM ended
         WHERE open_sinks = 0) AS ended
"""

#: A task and everything below it, locked: the first step of an end without a result.
LOCK_DOWN: LiteralString = """
WITH RECURSIVE mine AS (
  SELECT id, run_id, number, successors FROM tasks_task WHERE id = %(id)s),
down(run_id, number) AS (
  SELECT run_id, unnest(successors) FROM mine
   UNION
  SELECT t.run_id, unnest(t.successors)
    FROM down d JOIN tasks_task t ON t.run_id = d.run_id AND t.number = d.number)
SELECT t.id, t.number, t.key, t.status, t.join, t.pending, t.needs_failed, t.needs_skipped,
       t.in_degree, t.successors, t.is_sink, t.waits_for = 'needs' AS owes
  FROM tasks_task t
  JOIN (SELECT run_id, number FROM mine UNION SELECT run_id, number FROM down) w
    ON w.run_id = t.run_id AND w.number = t.number
 ORDER BY t.run_id, t.number
   FOR NO KEY UPDATE OF t
"""

#: Ends one locked task without a result: failed, cancelled or skipped.
#: `fence` NULL: whoever holds it. One that was cancelled before its needs have ended tells the
#: tasks below when they have (`waits_for` = needs): nothing ends before what it waited for. One
#: that was cancelled while it ran keeps a deadline, by which its agent must have let go of it
#: (`tasks.control.force_cancelled`).
END: LiteralString = """
WITH old AS (
  SELECT id, session_id, status, waits_for, pending FROM tasks_task
   WHERE id = %(id)s AND status = ANY(%(sources)s::text[])
     AND (%(fence)s::int IS NULL OR fence = %(fence)s)),
ended AS (
  UPDATE tasks_task t
     SET status = %(status)s::text, error = %(error)s::jsonb, wake_at = NULL,
         waits_for = CASE WHEN %(status)s::text = 'cancelled' AND old.status = 'pending'
                           AND old.pending > 0 THEN 'needs' ELSE '' END,
         fence = t.fence + 1, completed_at = clock_timestamp(),
         lease_until = CASE WHEN old.status = 'running' AND %(status)s::text = 'cancelled'
                            THEN clock_timestamp() + make_interval(secs => %(grace_s)s) END
    FROM old WHERE t.id = old.id
  RETURNING t.id, t.run_id, t.project_id, t.number, t.key, t.attempt, t.fence, t.is_sink,
            t.parent_id, t.limit_key, t.started_at, t.phase, t.session_id, t.item_count,
            t.waits_for = 'needs' AS early, old.status AS was, old.waits_for AS waited_for),
tried AS (
  INSERT INTO tasks_attempt (task_id, number, fence, outcome, session_id, error, started_at)
  SELECT id, attempt, fence - 1, %(outcome)s, session_id, %(error)s::jsonb, started_at
    FROM ended WHERE was = 'running'),
noted AS (
  INSERT INTO opscore_event (project_id, kind, run_id, task_id, actor, data)
  SELECT project_id, 'task.' || %(status)s::text, run_id, id, %(actor)s, %(error)s::jsonb
    FROM ended WHERE %(status)s::text <> 'skipped')
SELECT * FROM ended
"""

#: Writes what an end means for the locked tasks below it, as `tasks.joins.spread` says.
SPREAD: LiteralString = """
UPDATE tasks_task t
   SET pending = x.pending, needs_failed = x.failed, needs_skipped = x.skipped,
       status = CASE WHEN x.error IS NULL THEN t.status ELSE 'skipped' END,
       error = COALESCE(x.error, t.error),
       ready_at = CASE WHEN x.pending = 0 THEN COALESCE(t.ready_at, clock_timestamp())
                       ELSE t.ready_at END,
       completed_at = CASE WHEN x.error IS NULL THEN t.completed_at ELSE clock_timestamp() END
  FROM jsonb_to_recordset(%(rows)s::jsonb)
       AS x(number int, pending int, failed int, skipped int, error jsonb)
 WHERE t.run_id = %(run)s AND t.number = x.number
"""

#: The needs of a task that was cancelled early have ended; now it may tell the tasks below.
ALL_NEEDS_ENDED: LiteralString = """
UPDATE tasks_task SET waits_for = ''
 WHERE id = %(id)s AND status = 'cancelled' AND waits_for = 'needs' AND pending = 0
RETURNING id, run_id, project_id, key, is_sink, parent_id, limit_key, phase,
          false AS early, '' AS waited_for
"""

#: Counts ended sinks down and keeps the first error of the run.
CLOSE_SINKS: LiteralString = f"""
UPDATE tasks_run r SET {END_RUN}, error = COALESCE(r.error, s.error)
  FROM (SELECT %(run)s::uuid AS run_id, %(n)s::int AS n, %(error)s::jsonb AS error) s
 WHERE r.id = s.run_id
RETURNING {ENDED}
"""

#: A task that may be decided, locked, with all that its expressions may read.
DECIDABLE: LiteralString = f"""
SELECT {CLAIMED}, t.status, t.join, t.pending, t.needs_failed, t.needs_skipped, t.in_degree,
       t.waits_for, r.depth, COALESCE(t.wake_at < now() - interval '2 s', false) AS late
  FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id
 WHERE t.id = %(id)s AND t.status = ANY(%(statuses)s::text[]) AND {RUNNABLE}
   AND (t.status = 'pending' OR t.wake_at <= now() OR t.waits_for = 'needs')
   FOR NO KEY UPDATE OF t
"""

#: Tasks that were released and not decided: their process died in between.
UNDECIDED: LiteralString = f"""
SELECT t.id FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id
 WHERE (t.status = 'pending' AND (t.pending = 0 OR t.join = 'any'
             AND t.pending + t.needs_failed + t.needs_skipped < t.in_degree)
        OR t.status = 'cancelled' AND t.waits_for = 'needs' AND t.pending = 0)
   AND (%(run)s::uuid IS NULL OR t.run_id = %(run)s) AND {RUNNABLE}
 ORDER BY t.run_id, t.number LIMIT %(limit)s
"""

#: Queues a decided task (its row is locked); a hint follows.
QUEUE: LiteralString = f"""
UPDATE tasks_task t
   SET status = 'queued', wake_at = NULL, waits_for = '', hints = 0, hinted_at = now(),
       ready_at = clock_timestamp()
 WHERE t.id = %(id)s AND t.status IN ('pending', 'waiting', 'retrying')
RETURNING {READY}
"""

#: Lets a decided task wait for something other than an agent (its row is locked). It is held by
#: the platform: its fence is the one that ends the wait.
WAIT: LiteralString = """
UPDATE tasks_task t
   SET status = 'waiting', waits_for = %(for)s::text, session_id = NULL, fence = t.fence + 1,
       names = t.names || %(names)s::jsonb, hinted_at = NULL,
       started_at = CASE WHEN %(for)s::text IN ('slot', 'rate', 'breaker') THEN NULL
                         ELSE clock_timestamp() END,
       ready_at = COALESCE(t.ready_at, clock_timestamp()),
       wake_at = COALESCE(%(until)s::timestamptz,
                          clock_timestamp() + make_interval(secs => %(wake_s)s)),
       -- The time limit of a list is that of each item; who stands in line has not begun.
       lease_until = CASE WHEN %(for)s::text IN ('slot', 'rate', 'items', 'breaker')
                          THEN NULL
                          ELSE clock_timestamp() + make_interval(secs => t.timeout_s) END
 WHERE t.id = %(id)s AND t.status IN ('pending', 'waiting', 'retrying')
RETURNING t.id, t.fence
"""

#: Parks a task until `delay_s` is over: for its next attempt, its next iteration (`fresh`: the
#: tries are counted anew) or what catches its failure (`change`: what it is from now on). Its
#: canvas ends here, so the joins that this canvas would have delivered are marked uncarried.
RETRY: LiteralString = f"""
WITH RECURSIVE mine AS (
  SELECT id, run_id, number, successors FROM tasks_task WHERE id = %(id)s),
down(run_id, number, depth) AS (
  SELECT run_id, unnest(successors), 1 FROM mine
   UNION
  SELECT t.run_id, unnest(t.successors), d.depth + 1
    FROM down d JOIN tasks_task t ON t.run_id = d.run_id AND t.number = d.number
   WHERE d.depth < {REACH}),
held AS MATERIALIZED (
  SELECT t.id, t.session_id, t.attempt, t.in_degree, t.limit_key
    FROM tasks_task t
    JOIN (SELECT run_id, number FROM mine UNION SELECT run_id, number FROM down) w
      ON w.run_id = t.run_id AND w.number = t.number
   WHERE t.id = %(id)s OR t.in_degree > 1
   ORDER BY t.run_id, t.number
     FOR NO KEY UPDATE OF t),
parked AS (
  UPDATE tasks_task t
     SET status = 'retrying', attempt = t.attempt + 1, error = %(error)s::jsonb,
         session_id = NULL, lease_until = NULL, hints = 0, waits_for = '', hinted_at = NULL,
         for_agent = NULL, for_until = NULL,
         wake_at = clock_timestamp() + make_interval(secs => %(delay_s)s),
         tried_before = CASE WHEN %(fresh)s THEN t.attempt ELSE t.tried_before END,
         names = t.names || %(names)s::jsonb,
         uses = COALESCE(c.uses, t.uses), capability = COALESCE(c.capability, t.capability),
         requires = COALESCE(c.requires, t.requires), queue = COALESCE(c.queue, t.queue),
         inputs = COALESCE(c.inputs, t.inputs), retry = COALESCE(c.retry, t.retry),
         flow = COALESCE(c.flow, t.flow), direct = COALESCE(c.direct, t.direct),
         -- What catches a failure does not stand under the task's limits.
         limit_key = CASE WHEN c.flow IS NULL THEN t.limit_key ELSE '' END
    FROM held h, jsonb_to_record(%(change)s::jsonb) AS c(
         uses text, capability text, requires varchar[], queue text, inputs jsonb, retry jsonb,
         flow jsonb, direct bool)
   WHERE t.id = %(id)s AND h.id = t.id AND t.status IN ('running', 'waiting')
     AND t.fence = %(fence)s
  RETURNING t.id, t.run_id, t.project_id, t.key, t.fence, t.started_at, t.direct,
            h.limit_key, h.session_id, h.attempt AS tried),
uncarried AS (
  UPDATE tasks_task t SET uncarried = true
    FROM held h, parked p
   WHERE t.id = h.id AND t.id <> p.id AND t.status = 'pending'),
tried AS (
  INSERT INTO tasks_attempt (task_id, number, fence, outcome, session_id, error, started_at)
  SELECT id, tried, fence, %(outcome)s, session_id, %(error)s::jsonb, started_at FROM parked),
noted AS (
  INSERT INTO opscore_event (project_id, kind, run_id, task_id, actor, data)
  SELECT project_id, 'task.retrying', run_id, id, '',
         %(error)s::jsonb || jsonb_build_object('attempt', tried, 'delay_s', %(delay_s)s::float)
    FROM parked WHERE %(error)s::jsonb IS NOT NULL)
SELECT id, run_id, project_id, key, limit_key, direct FROM parked
"""
