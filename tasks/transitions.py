"""Every statement that writes the status of a task or a run; each is one transaction by itself.

Rules that hold in all of them (docs/decisions.md says why):
- A row changes by compare-and-set on its source status, as `tasks.states` allows.
- Locks are taken in one order: task rows ascending by (run, number), then run rows ascending.
- Time is the database's; workers' clocks are never compared.
- `hinted_at` is the outbox: what is queued and was hinted too long ago is sent again.
"""

from __future__ import annotations

from typing import LiteralString

# How far below a task the canvas that carried it can reach (see tasks.segments.MAX_CHAIN): joins
# within that distance lose their carrier when the task ends in an unusual way.
_REACH: LiteralString = "11"

_CLAIM_SET: LiteralString = """
   SET status = 'running', fence = t.fence + 1, session_id = %(session)s,
       started_at = clock_timestamp(), wake_at = NULL,
       lease_until = clock_timestamp()
                     + make_interval(secs => least(t.timeout_s, t.heartbeat_s))
"""

# What is due may start: the run runs (or ends, and this belongs to its end), nobody paused it.
_RUNNABLE: LiteralString = """
       (r.status = 'running' OR r.status = 'cancelling' AND t.phase <> 'main')
   AND NOT EXISTS (SELECT FROM tasks_pause p
                    WHERE p.project_id = t.project_id AND p.workflow IN ('', r.workflow))
"""

_LIVE: LiteralString = "('pending', 'queued', 'running', 'waiting', 'retrying')"

# All that the holder of an attempt needs.
_CLAIMED: LiteralString = """
       t.id, t.run_id, t.project_id, t.number, t.key, t.uses, t.capability, t.requires, t.queue,
       t.attempt, t.fence,
       t.priority, t.timeout_s, t.inputs::json, t.outputs_template::json, t.retry::json,
       t.flow::json, t.names::json, t.parent_id, t.tried_before,
       r.inputs::json AS run_inputs, r.workflow,
       (SELECT json_object_agg(u.key, json_build_object(
                 'result', u.result, 'outputs', u.outputs, 'result_ref', u.result_ref,
                 'status', u.status, 'error', u.error))
          FROM tasks_task u WHERE u.run_id = t.run_id AND u.number = ANY(t.reads)) AS upstream
"""

#: A hint says: task, attempt. No row: stale, taken, paused, cancelled, or the session has ended.
CLAIM: LiteralString = f"""
UPDATE tasks_task t {_CLAIM_SET}
  FROM tasks_run r
 WHERE t.id = %(id)s AND t.attempt = %(attempt)s AND t.status = 'queued'
   AND r.id = t.run_id AND {_RUNNABLE}
   AND EXISTS (SELECT FROM agents_agentsession s
                 JOIN agents_agent a ON a.id = s.agent_id AND NOT a.paused
                WHERE s.id = %(session)s AND s.ended_at IS NULL AND s.condemned = '')
RETURNING {_CLAIMED}
"""

#: What a polling agent may have: its capabilities, its labels, priority first, then age.
POLL: LiteralString = f"""
WITH pick AS (
  SELECT t.id
    FROM agents_agentsession s
    JOIN agents_agent a ON a.id = s.agent_id AND a.desired = 'running' AND NOT a.paused
    JOIN tasks_task t ON t.project_id = s.project_id AND t.status = 'queued'
     AND t.capability = ANY(a.capabilities) AND t.requires <@ a.labels
   WHERE s.id = %(session)s AND s.ended_at IS NULL AND s.condemned = ''
     AND EXISTS (SELECT FROM tasks_run r WHERE r.id = t.run_id AND {_RUNNABLE})
   ORDER BY t.priority DESC, t.ready_at
   LIMIT %(limit)s
     FOR NO KEY UPDATE OF t SKIP LOCKED)
UPDATE tasks_task t {_CLAIM_SET}
  FROM tasks_run r
 WHERE t.id IN (SELECT id FROM pick) AND t.status = 'queued' AND r.id = t.run_id
RETURNING {_CLAIMED}
"""

#: The attempt that a fence holds; a waiting task is held by the platform itself.
HELD: LiteralString = f"""
SELECT {_CLAIMED}
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

# What dispatch must know of a task that became ready.
_READY: LiteralString = """t.id, t.run_id, t.project_id, t.number, t.attempt, t.queue,
       t.capability, t.priority, t.uncarried, t.in_degree, t.successors"""

_READY_OF_MADE: LiteralString = """m.id, m.run_id, m.project_id, m.number, m.attempt, m.queue,
       m.capability, m.priority, m.uncarried, m.in_degree, m.successors"""

# A run's end: its last open sink decides, by the first error that was recorded. A run with an
# epilogue stays as it is: `tasks.epilogue` goes on.
_STAYS: LiteralString = """
       (s.n = 0 OR r.open_sinks > s.n OR r.epilogue
        OR r.status NOT IN ('created', 'running', 'paused'))
"""
_VERDICT: LiteralString = """
         CASE WHEN COALESCE(r.error, s.error) IS NULL THEN 'completed'
              WHEN COALESCE(r.error, s.error)->>'type' = 'cancelled' THEN 'cancelled'
              ELSE 'failed' END
"""
_END_RUN: LiteralString = f"""
       open_sinks = r.open_sinks - s.n,
       status = CASE WHEN {_STAYS} THEN r.status ELSE {_VERDICT} END,
       completed_at = CASE WHEN {_STAYS} THEN r.completed_at ELSE clock_timestamp() END
"""
_ENDED: LiteralString = """
       r.id, r.project_id, r.workflow, r.status, r.open_sinks, r.parent_task_id, r.limit_key
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
  RETURNING t.id, t.run_id, t.project_id, t.successors, t.is_sink, t.parent_id, t.limit_key),
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
  RETURNING {_READY}, t.status, t.pending, t.join, t.plain,
            t.waits_for),
sinks AS (
  SELECT run_id, count(*)::int AS n, NULL::jsonb AS error
    FROM done WHERE is_sink GROUP BY run_id),
runs_held AS MATERIALIZED (
  SELECT id FROM tasks_run WHERE id IN (SELECT run_id FROM sinks)
   ORDER BY id FOR NO KEY UPDATE),
ended AS (
  UPDATE tasks_run r SET {_END_RUN}
    FROM sinks s JOIN runs_held h ON h.id = s.run_id
   WHERE r.id = s.run_id
  RETURNING {_ENDED})
SELECT (SELECT COALESCE(json_agg(id), '[]') FROM done) AS done,
       (SELECT COALESCE(json_agg(released), '[]') FROM released
         WHERE pending = 0 AND status = 'queued' AND plain) AS ready,
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
#: tasks below when they have (`waits_for` = needs): nothing ends before what it waited for. One that was cancelled while it ran keeps a deadline, by which
#: its agent must have let go of it (`tasks.control.force_cancelled`).
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
UPDATE tasks_run r SET {_END_RUN}, error = COALESCE(r.error, s.error)
  FROM (SELECT %(run)s::uuid AS run_id, %(n)s::int AS n, %(error)s::jsonb AS error) s
 WHERE r.id = s.run_id
RETURNING {_ENDED}
"""

#: A task that may be decided, locked, with all that its expressions may read.
DECIDABLE: LiteralString = f"""
SELECT {_CLAIMED}, t.status, t.join, t.pending, t.needs_failed, t.needs_skipped, t.in_degree,
       t.waits_for, r.depth
  FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id
 WHERE t.id = %(id)s AND t.status = ANY(%(statuses)s::text[]) AND {_RUNNABLE}
   AND (t.status = 'pending' OR t.wake_at <= now() OR t.waits_for = 'needs')
   FOR NO KEY UPDATE OF t
"""

#: Tasks that were released and not decided: their process died in between.
UNDECIDED: LiteralString = f"""
SELECT t.id FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id
 WHERE (t.status = 'pending' AND (t.pending = 0 OR t.join = 'any'
             AND t.pending + t.needs_failed + t.needs_skipped < t.in_degree)
        OR t.status = 'cancelled' AND t.waits_for = 'needs' AND t.pending = 0)
   AND (%(run)s::uuid IS NULL OR t.run_id = %(run)s) AND {_RUNNABLE}
 ORDER BY t.run_id, t.number LIMIT %(limit)s
"""

#: Queues a decided task (its row is locked); a hint follows.
QUEUE: LiteralString = f"""
UPDATE tasks_task t
   SET status = 'queued', wake_at = NULL, waits_for = '', hints = 0, hinted_at = now(),
       ready_at = clock_timestamp()
 WHERE t.id = %(id)s AND t.status IN ('pending', 'waiting', 'retrying')
RETURNING {_READY}
"""

#: Lets a decided task wait for something other than an agent (its row is locked). It is held by
#: the platform: its fence is the one that ends the wait.
WAIT: LiteralString = """
UPDATE tasks_task t
   SET status = 'waiting', waits_for = %(for)s::text, session_id = NULL, fence = t.fence + 1,
       names = t.names || %(names)s::jsonb, hinted_at = NULL,
       started_at = CASE WHEN %(for)s::text IN ('slot', 'rate') THEN NULL
                         ELSE clock_timestamp() END,
       ready_at = COALESCE(t.ready_at, clock_timestamp()),
       wake_at = COALESCE(%(until)s::timestamptz,
                          clock_timestamp() + make_interval(secs => %(wake_s)s)),
       -- The time limit of a list is that of each item; who stands in line has not begun.
       lease_until = CASE WHEN %(for)s::text IN ('slot', 'rate', 'items') THEN NULL
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
   WHERE d.depth < {_REACH}),
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

#: Gives back what ended sessions held: a loss, not an attempt. Rows that lost their agent
#: `max_losses` times stay as they are and come back in `poison`, for FAIL.
GIVE_BACK: LiteralString = f"""
WITH RECURSIVE lost AS (
  SELECT t.id, t.run_id, t.number, t.successors
    FROM tasks_task t
    JOIN agents_agentsession s ON s.id = t.session_id AND s.ended_at IS NOT NULL
   WHERE t.status = 'running'
     AND (%(sessions)s::uuid[] IS NULL OR t.session_id = ANY(%(sessions)s))
   ORDER BY t.run_id, t.number LIMIT 500),
down(run_id, number, depth) AS (
  SELECT run_id, unnest(successors), 1 FROM lost
   UNION
  SELECT t.run_id, unnest(t.successors), d.depth + 1
    FROM down d JOIN tasks_task t ON t.run_id = d.run_id AND t.number = d.number
   WHERE d.depth < {_REACH}),
held AS MATERIALIZED (
  SELECT t.id, t.session_id, t.status, t.fence, t.losses
    FROM tasks_task t
    JOIN (SELECT run_id, number, true AS lost FROM lost
           UNION SELECT run_id, number, false FROM down) w
      ON w.run_id = t.run_id AND w.number = t.number
   WHERE w.lost OR t.in_degree > 1
   ORDER BY t.run_id, t.number
     FOR NO KEY UPDATE OF t),
back AS (
  UPDATE tasks_task t
     SET status = 'queued', losses = t.losses + 1, fence = t.fence + 1, session_id = NULL,
         lease_until = NULL, ready_at = clock_timestamp(), hinted_at = now(), hints = 0
    FROM held h JOIN agents_agentsession s ON s.id = h.session_id AND s.ended_at IS NOT NULL
   WHERE t.id = h.id AND t.status = 'running' AND t.session_id = h.session_id
     AND t.losses < %(max_losses)s
  RETURNING {_READY}, t.key, t.losses, t.fence, t.started_at, h.session_id, s.agent_id,
            s.end_reason),
uncarried AS (
  UPDATE tasks_task t SET uncarried = true
    FROM held h
   WHERE t.id = h.id AND t.status = 'pending' AND EXISTS (SELECT FROM lost)),
tried AS (
  INSERT INTO tasks_attempt (task_id, number, fence, outcome, session_id, error, started_at)
  SELECT id, attempt, fence - 1, 'lost', session_id,
         jsonb_build_object('type', 'lost', 'message', end_reason), started_at FROM back),
noted AS (
  INSERT INTO opscore_event (project_id, kind, run_id, task_id, agent_id, actor, data)
  SELECT project_id, 'task.lost', run_id, id, agent_id, '',
         jsonb_build_object('message', end_reason, 'losses', losses) FROM back)
SELECT (SELECT COALESCE(json_agg(back), '[]') FROM back) AS ready,
       (SELECT COALESCE(json_agg(json_build_array(h.id, h.fence)), '[]')
          FROM held h JOIN agents_agentsession s
            ON s.id = h.session_id AND s.ended_at IS NOT NULL
         WHERE h.status = 'running' AND h.losses >= %(max_losses)s) AS poison
"""

#: Puts back one task that its session claimed without learning of it: neither attempt nor loss.
UNCLAIM: LiteralString = f"""
UPDATE tasks_task t
   SET status = 'queued', fence = t.fence + 1, session_id = NULL, lease_until = NULL,
       hinted_at = now()
 WHERE t.id = %(id)s AND t.session_id = %(session)s AND t.status = 'running'
RETURNING {_READY}
"""

#: Retries whose backoff is over. SKIP LOCKED: any number of reconcilers at once.
WAKE: LiteralString = f"""
WITH due AS (
  SELECT t.id FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id
   WHERE t.status = 'retrying' AND t.direct AND t.wake_at <= now() AND {_RUNNABLE}
     AND (%(id)s::uuid IS NULL OR t.id = %(id)s)
   ORDER BY t.run_id, t.number LIMIT %(limit)s
     FOR NO KEY UPDATE OF t SKIP LOCKED)
UPDATE tasks_task t
   SET status = 'queued', wake_at = NULL, ready_at = clock_timestamp(), hinted_at = now(),
       hints = 0
  FROM due WHERE t.id = due.id
RETURNING {_READY}
"""

#: Waits that are over and retries that must pass their limits again; `tasks.deciding` does them.
DUE: LiteralString = f"""
SELECT t.id FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id
 WHERE t.status IN ('waiting', 'retrying') AND t.wake_at <= now()
   AND NOT (t.status = 'retrying' AND t.direct) AND {_RUNNABLE}
 ORDER BY t.wake_at LIMIT %(limit)s
"""

#: The outbox: queued, and nobody came for stale x 2^hints seconds (at most ten minutes).
#: Without the doubling a backlog longer than `stale_s` would double the broker's queue. Queues
#: that are `held` still have all their messages: looked at again later, but not sent.
REHINT: LiteralString = f"""
WITH due AS (
  SELECT t.id FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id
   WHERE t.status = 'queued' AND {_RUNNABLE}
     AND t.hinted_at < now() - make_interval(
           secs => least(%(stale_s)s * power(2, least(t.hints, 7)), 600))
   ORDER BY t.run_id, t.number LIMIT %(limit)s
     FOR NO KEY UPDATE OF t SKIP LOCKED)
UPDATE tasks_task t
   SET hinted_at = now(),
       hints = CASE WHEN t.queue = ANY(%(held)s::text[]) THEN greatest(t.hints, least(t.hints + 1, 3))
                    ELSE least(t.hints + 1, 100) END
  FROM due WHERE t.id = due.id
RETURNING {_READY}, t.queue = ANY(%(held)s::text[]) AS held
"""

#: Queues in which a hint is due again, with all that is queued for them.
STALE_QUEUES: LiteralString = """
SELECT queue, count(*) AS tasks FROM tasks_task
 WHERE status = 'queued' AND queue IN (
       SELECT queue FROM tasks_task
        WHERE status = 'queued' AND hinted_at < now() - make_interval(secs => %(stale_s)s))
 GROUP BY queue
"""

#: An agent for these queues appeared, a pause ended, or the broker lost its memory: hint again
#: at the next tick.
FORGET_HINTS: LiteralString = """
WITH stale AS (
  SELECT t.id FROM tasks_task t
   WHERE t.status = 'queued' AND (%(queues)s::text[] IS NULL OR t.queue = ANY(%(queues)s))
     AND (%(run)s::uuid IS NULL OR t.run_id = %(run)s)
     AND t.hinted_at > to_timestamp(0)
   ORDER BY t.run_id, t.number
     FOR NO KEY UPDATE SKIP LOCKED)
UPDATE tasks_task t SET hinted_at = to_timestamp(0), hints = 0 FROM stale WHERE t.id = stale.id
"""

#: Tasks past their deadline: running too long, silent, or waiting too long.
OVERDUE: LiteralString = """
SELECT t.id, t.run_id, t.fence, t.attempt, t.status, t.timeout_s, t.heartbeat_s, t.session_id,
       CASE WHEN t.waits_for = 'run' THEN (t.names->>'run')::uuid END AS body,
       COALESCE(t.started_at + make_interval(secs => t.timeout_s) <= now(), false) AS ran_out
  FROM tasks_task t
 WHERE (t.status = 'running' AND t.lease_until < now())
    OR (t.status = 'waiting' AND t.lease_until < now())
 ORDER BY t.run_id, t.number LIMIT %(limit)s
"""

#: Tasks that no agent took in time.
QUEUED_TOO_LONG: LiteralString = f"""
SELECT t.id, t.fence, t.queue_timeout_s FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id
 WHERE t.status = 'queued' AND t.queue_timeout_s IS NOT NULL AND {_RUNNABLE}
   AND t.ready_at < now() - make_interval(secs => t.queue_timeout_s)
 ORDER BY t.run_id, t.number LIMIT %(limit)s
"""

#: Cancelled while they ran, and their agents did not let go in time.
NOT_LET_GO: LiteralString = """
SELECT t.id, t.session_id FROM tasks_task t
 WHERE t.status = 'cancelled' AND t.lease_until < now() LIMIT %(limit)s
"""

#: The agent of a cancelled task has stopped working on it, or was stopped.
LET_GO: LiteralString = """
UPDATE tasks_task SET lease_until = NULL
 WHERE id = ANY(%(ids)s::uuid[]) AND status = 'cancelled' AND lease_until IS NOT NULL
   AND (%(fence)s::int IS NULL OR fence = %(fence)s + 1)
RETURNING project_id, limit_key
"""

#: First half of a cancel, in a transaction of its own: from here on nothing is claimed.
CANCEL_RUN_FLAG: LiteralString = """
UPDATE tasks_run SET status = 'cancelling'
 WHERE id = %(id)s AND status IN ('created', 'running', 'paused')
RETURNING id
"""

#: Second half: every live task (of the main phase, unless `all`), then the run; one with an
#: epilogue goes on with it. Repeatable, so the reconciler can finish it.
CANCEL_RUN: LiteralString = f"""
WITH held AS MATERIALIZED (
  SELECT t.id, t.session_id, t.status, t.waits_for FROM tasks_task t
    JOIN tasks_run r ON r.id = t.run_id AND r.status = 'cancelling'
   WHERE t.run_id = %(id)s AND (t.phase = 'main' OR %(all)s) AND t.status IN {_LIVE}
   ORDER BY t.number
     FOR NO KEY UPDATE OF t),
cancelled AS (
  UPDATE tasks_task t
     SET status = 'cancelled', fence = t.fence + 1, wake_at = NULL, waits_for = '',
         completed_at = clock_timestamp(),
         lease_until = CASE WHEN held.status = 'running'
                            THEN clock_timestamp() + make_interval(secs => %(grace_s)s) END
    FROM held WHERE t.id = held.id AND t.status IN {_LIVE}
  RETURNING t.id, t.project_id, t.attempt, t.fence, t.started_at, t.limit_key, held.session_id,
            held.status AS was, held.waits_for AS waited_for),
tried AS (
  INSERT INTO tasks_attempt (task_id, number, fence, outcome, session_id, error, started_at)
  SELECT id, attempt, fence - 1, 'cancelled', session_id, NULL, started_at
    FROM cancelled WHERE was = 'running'),
ended AS (
  UPDATE tasks_run r
     SET open_sinks = 0,
         status = CASE WHEN r.epilogue AND NOT %(all)s THEN r.status ELSE 'cancelled' END,
         completed_at = CASE WHEN r.epilogue AND NOT %(all)s THEN NULL
                             ELSE clock_timestamp() END,
         error = COALESCE(r.error, '{{"type": "cancelled", "message": "The run was cancelled."}}')
   WHERE r.id = %(id)s AND r.status = 'cancelling' AND (r.phase = 'main' OR %(all)s)
     AND (SELECT count(*) FROM cancelled) >= 0
  RETURNING {_ENDED}),
noted AS (
  INSERT INTO opscore_event (project_id, kind, run_id, actor, data)
  SELECT project_id, 'run.cancelled', id, %(actor)s,
         jsonb_build_object('tasks', (SELECT count(*) FROM cancelled)) FROM ended)
SELECT (SELECT COALESCE(json_agg(ended), '[]') FROM ended) AS ended,
       (SELECT COALESCE(json_agg(id), '[]') FROM cancelled WHERE waited_for = 'run') AS above,
       (SELECT COALESCE(json_agg(DISTINCT jsonb_build_array(project_id, limit_key)), '[]')
          FROM cancelled WHERE limit_key <> '') AS freed
"""

#: Runs whose cancel was cut short after its first half.
HALF_CANCELLED: LiteralString = """
SELECT id FROM tasks_run WHERE status = 'cancelling' AND phase = 'main' LIMIT 100
"""

#: Pauses and resumes a run; what runs goes on, nothing new is claimed meanwhile.
PAUSE_RUN: LiteralString = f"""
UPDATE tasks_run r SET status = 'paused' WHERE id = %(id)s AND status = 'running'
RETURNING {_ENDED}
"""
RESUME_RUN: LiteralString = f"""
UPDATE tasks_run r SET status = 'running' WHERE id = %(id)s AND status = 'paused'
RETURNING {_ENDED}
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
UPDATE tasks_run r SET status = 'running' FROM next WHERE r.id = next.id
RETURNING {_ENDED}
"""

#: As ADMIT_RUN, for tasks; slots are counted from the rows that hold them, never kept. A locked
#: row is left to whoever holds it: waiting for it under the key's lock could close a circle.
ADMISSIBLE_TASK: LiteralString = """
WITH live AS (
  SELECT count(*) AS n FROM tasks_task
   WHERE project_id = %(project)s AND limit_key = %(key)s
     AND (status IN ('queued', 'running') OR status = 'cancelled' AND lease_until IS NOT NULL))
SELECT t.id FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id, live
 WHERE t.project_id = %(project)s AND t.limit_key = %(key)s
   AND t.status = 'waiting' AND t.waits_for = 'slot'
   AND r.status IN ('running', 'cancelling')
   AND live.n < COALESCE((t.flow->'concurrency'->>'limit')::int, 1)
 ORDER BY t.priority DESC, t.ready_at, t.id LIMIT 1
   FOR NO KEY UPDATE OF t SKIP LOCKED
"""

#: Moves a run that has an epilogue to its next phase, once: the old phase is the guard.
NEXT_PHASE: LiteralString = """
UPDATE tasks_run SET phase = %(next)s::text, open_sinks = %(sinks)s
 WHERE id = %(id)s AND phase = %(phase)s AND open_sinks = 0
   AND status IN ('running', 'paused', 'cancelling')
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
       status = CASE WHEN r.status = 'cancelling' THEN 'cancelled' ELSE {_VERDICT} END
  FROM (SELECT NULL::jsonb AS error) s
 WHERE r.id = %(id)s AND r.phase = %(phase)s AND r.open_sinks = 0
   AND r.status IN ('running', 'paused', 'cancelling')
RETURNING {_ENDED}
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
SELECT {_READY_OF_MADE}, m.status FROM made m ORDER BY m.number
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
   WHERE parent_id = %(id)s AND status IN {_LIVE} ORDER BY number FOR NO KEY UPDATE),
cancelled AS (
  UPDATE tasks_task t
     SET status = 'cancelled', fence = t.fence + 1, wake_at = NULL, waits_for = '',
         completed_at = clock_timestamp(),
         lease_until = CASE WHEN held.status = 'running'
                            THEN clock_timestamp() + make_interval(secs => %(grace_s)s) END
    FROM held WHERE t.id = held.id
  RETURNING t.id, t.project_id, t.limit_key, held.waits_for)
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
     AND r.status IN ('completed', 'failed', 'cancelled') AND t.status IN {_LIVE}
   LIMIT %(limit)s),
held AS (
  SELECT t.id, t.status, t.waits_for FROM tasks_task t JOIN stray USING (id)
   WHERE t.status IN {_LIVE} ORDER BY t.run_id, t.number FOR NO KEY UPDATE OF t SKIP LOCKED)
UPDATE tasks_task t
   SET status = 'cancelled', fence = t.fence + 1, wake_at = NULL, waits_for = '',
       completed_at = clock_timestamp(),
       error = '{{"type": "cancelled", "message": "What it belonged to has ended."}}',
       lease_until = CASE WHEN held.status = 'running'
                          THEN clock_timestamp() + make_interval(secs => %(grace_s)s) END
  FROM held WHERE t.id = held.id
RETURNING t.id, t.project_id, t.limit_key, held.waits_for
"""
