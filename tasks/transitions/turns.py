"""Who goes first: what is hinted, what is held back, and in which order it goes on.

A queued task is *hinted* (`hinted_at`: a message may lie in the broker), *held back* (`hinted_at`
NULL: it waits here for its turn) or *forgotten* (the epoch: the reconciler looks at it again).
What is held back goes on by priority, then by turns, then by age. Turns have two levels, and
stand in two numbers that mean something only among what is held back in one queue at one priority:

- `tenant_turn`: a tenant has as many turns as tasks there; the smallest one is next.
- `run_turn`: which of the tenant's tasks is taken then: the smallest one. When that row is not
  the one that held the turn, the two exchange their turns, so that the tenant has paid.

Whoever joins does so behind the present round (smallest turn + 1), with one turn a round: nobody
can be overtaken for more than one round, and who comes alone finds plain age.
"""

from __future__ import annotations

from typing import LiteralString

from tasks.transitions.fragments import HELD_BACK, HINTED, IN_WINDOW, LEFT, READY, RUNNABLE

#: First halves of advisory locks: one transaction holds back, one fills a window, for a queue.
_HOLD_CLASS: LiteralString = "2911"
_FILL_CLASS: LiteralString = "2912"

#: How much is hinted in each queue at this priority or a higher one, counted up to `enough`, and
#: whether others are held back there.
ROOM: LiteralString = f"""
SELECT w.queue,
       (SELECT count(*) FROM (
          SELECT FROM tasks_task o
           WHERE o.queue = w.queue AND {IN_WINDOW.format("o")} AND o.priority >= w.priority
           LIMIT w.enough) counted)::int AS hinted,
       EXISTS (SELECT FROM tasks_task h
                WHERE h.queue = w.queue AND {HELD_BACK.format("h")}
                  AND h.priority >= w.priority) AS held
  FROM unnest(%(queues)s::text[], %(priorities)s::int[], %(enough)s::int[])
         AS w(queue, priority, enough)
"""

#: Before HOLD: turns are given one transaction after the other, or two would get the same ones.
#: So nobody waits for the disk while others wait for him: what a crash of the database loses here
#: is a turn, and the reconciler hints the task again.
LOCK_TURNS: LiteralString = f"""
SELECT pg_advisory_xact_lock({_HOLD_CLASS}, hashtext(queue)),
       set_config('synchronous_commit', 'off', true)
  FROM (SELECT DISTINCT unnest(%(queues)s::text[]) AS queue ORDER BY 1) ordered
"""

#: Holds queued tasks back and gives them their turns. The first of each tenant and run looks up
#: where the others begin too; a join with what it found is planned for two rows and is quadratic.
HOLD: LiteralString = f"""
WITH mine AS MATERIALIZED (
  SELECT t.id, t.queue, t.priority, r.fairness_key AS tenant, t.run_id, t.ready_at, t.number
    FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id
   WHERE t.id = ANY(%(ids)s::uuid[]) AND t.status = 'queued' AND t.hinted_at IS NOT NULL
   ORDER BY t.run_id, t.number
     FOR NO KEY UPDATE OF t SKIP LOCKED),
counted AS (
  SELECT *,
         row_number() OVER (PARTITION BY queue, priority, tenant
                            ORDER BY ready_at, run_id, number) - 1 AS of_tenant,
         row_number() OVER (PARTITION BY queue, priority, run_id
                            ORDER BY ready_at, number) - 1 AS of_run
    FROM mine),
begun AS (
  SELECT c.id, c.tenant, c.of_tenant, c.of_run,
         max(CASE WHEN c.of_tenant = 0 THEN greatest(
           1 + (SELECT x.tenant_turn FROM tasks_task x
                 WHERE x.queue = c.queue AND x.priority = c.priority AND {HELD_BACK.format("x")}
                 ORDER BY x.tenant_turn LIMIT 1),
           1 + (SELECT x.tenant_turn FROM tasks_task x
                 WHERE x.queue = c.queue AND x.priority = c.priority AND x.tenant = c.tenant
                   AND {HELD_BACK.format("x")}
                 ORDER BY x.tenant_turn DESC LIMIT 1)) END)
           OVER (PARTITION BY c.queue, c.priority, c.tenant) AS next_of_tenant,
         max(CASE WHEN c.of_tenant = 0 THEN
           1 + (SELECT x.run_turn FROM tasks_task x
                 WHERE x.queue = c.queue AND x.priority = c.priority AND x.tenant = c.tenant
                   AND {HELD_BACK.format("x")}
                 ORDER BY x.run_turn LIMIT 1) END)
           OVER (PARTITION BY c.queue, c.priority, c.tenant) AS round,
         max(CASE WHEN c.of_run = 0 THEN
           1 + (SELECT x.run_turn FROM tasks_task x
                 WHERE x.run_id = c.run_id AND x.queue = c.queue AND x.priority = c.priority
                   AND {HELD_BACK.format("x")}
                 ORDER BY x.run_turn DESC LIMIT 1) END)
           OVER (PARTITION BY c.queue, c.priority, c.run_id) AS next_of_run
    FROM counted c)
UPDATE tasks_task t
   SET hinted_at = NULL, hints = 0, tenant = b.tenant,
       tenant_turn = greatest(0, b.next_of_tenant) + b.of_tenant,
       run_turn = greatest(0, b.round, b.next_of_run) + b.of_run
  FROM begun b
 WHERE t.id = b.id
"""

#: The first `reach` tasks that are held back in each queue of `able`, in their order. Each row
#: is a turn: `payer` holds it, `id` is the task that it is for. OFFSET 0 keeps the planner from
#: joining all runs before it sorts: the indexes have the order.
FAIR: LiteralString = f"""
due AS (
  SELECT a.queue, d.*,
         row_number() OVER (PARTITION BY a.queue, d.priority, d.tenant
                            ORDER BY d.tenant_turn, d.ready_at, d.id) AS nth
    FROM able a, LATERAL (
      SELECT t.id, t.priority, t.tenant, t.tenant_turn, t.ready_at
        FROM tasks_task t
       WHERE t.queue = a.queue AND {HELD_BACK.format("t")}
         AND EXISTS (SELECT FROM tasks_run r WHERE r.id = t.run_id AND {RUNNABLE} OFFSET 0)
       ORDER BY t.priority DESC, t.tenant_turn, t.ready_at, t.id LIMIT a.reach) d),
theirs AS (
  SELECT d.queue, d.priority, d.tenant, o.*,
         row_number() OVER (PARTITION BY d.queue, d.priority, d.tenant
                            ORDER BY o.run_turn, o.ready_at, o.id) AS nth
    FROM (SELECT queue, priority, tenant, count(*) AS turns FROM due
           GROUP BY queue, priority, tenant) d, LATERAL (
      SELECT t.id, t.tenant_turn, t.run_turn, t.ready_at
        FROM tasks_task t
       WHERE t.queue = d.queue AND t.priority = d.priority AND t.tenant = d.tenant
         AND {HELD_BACK.format("t")}
         AND EXISTS (SELECT FROM tasks_run r WHERE r.id = t.run_id AND {RUNNABLE} OFFSET 0)
       ORDER BY t.run_turn, t.ready_at, t.id LIMIT d.turns) o),
fair AS MATERIALIZED (
  SELECT o.id, o.ready_at, o.tenant_turn AS own_turn, d.id AS payer, d.tenant_turn AS turn,
         d.ready_at AS since, queue, priority, tenant
    FROM due d JOIN theirs o USING (queue, priority, tenant, nth))
"""

#: What was picked has used up turns of its tenant's; who held those gets the turns of the picked.
EXCHANGE: LiteralString = f"""
paid AS (SELECT f.* FROM fair f JOIN pick USING (id)),
payers AS (
  SELECT payer AS id, queue, priority, tenant,
         row_number() OVER (PARTITION BY queue, priority, tenant ORDER BY turn, payer) AS nth
    FROM paid WHERE payer NOT IN (SELECT id FROM paid)),
freed AS (
  SELECT own_turn, queue, priority, tenant,
         row_number() OVER (PARTITION BY queue, priority, tenant ORDER BY own_turn, id) AS nth
    FROM paid WHERE id NOT IN (SELECT payer FROM paid)),
free_to_change AS MATERIALIZED (
  SELECT t.id FROM tasks_task t JOIN payers USING (id)
   WHERE {HELD_BACK.format("t")}
     FOR NO KEY UPDATE OF t SKIP LOCKED),
exchanged AS (
  UPDATE tasks_task t SET tenant_turn = f.own_turn
    FROM payers p
    JOIN freed f USING (queue, priority, tenant, nth)
    JOIN free_to_change USING (id)
   WHERE t.id = p.id)
"""

#: Takes what a queue's window has room for, at the highest priority that is held back there, in
#: its order; the caller sends the hints. Nothing while another transaction does the same.
FILL: LiteralString = f"""
WITH head AS (
  SELECT t.priority FROM tasks_task t
   WHERE t.queue = %(queue)s AND {HELD_BACK.format("t")}
     AND EXISTS (SELECT FROM tasks_run r WHERE r.id = t.run_id AND {RUNNABLE} OFFSET 0)
   ORDER BY t.priority DESC, t.tenant_turn, t.ready_at LIMIT 1),
able AS MATERIALIZED (
  SELECT %(queue)s::text AS queue, head.priority AS head,
         greatest(0, %(window)s - (SELECT count(*) FROM (
           SELECT FROM tasks_task o
            WHERE o.queue = %(queue)s AND {IN_WINDOW.format("o")} AND o.priority >= head.priority
            LIMIT %(window)s) counted)) AS reach
    FROM head
   WHERE pg_try_advisory_xact_lock({_FILL_CLASS}, hashtext(%(queue)s))),
{FAIR},
pick AS MATERIALIZED (
  SELECT t.id FROM tasks_task t JOIN fair f ON f.id = t.id JOIN able a ON a.head = f.priority
   WHERE {HELD_BACK.format("t")}
     FOR NO KEY UPDATE OF t SKIP LOCKED),
{EXCHANGE},
taken AS (
  UPDATE tasks_task t SET hinted_at = now(), hints = 0
    FROM pick WHERE t.id = pick.id
  RETURNING {READY})
SELECT taken.*, able.reach FROM taken JOIN fair USING (id), able ORDER BY fair.turn, fair.since
"""

#: Queues in which something is held back; a step for each of them, however long they are.
HELD_BACK_QUEUES: LiteralString = f"""
WITH RECURSIVE next AS (
  SELECT min(queue) AS queue FROM tasks_task t WHERE {HELD_BACK.format("t")}
   UNION ALL
  SELECT (SELECT min(t.queue) FROM tasks_task t
           WHERE {HELD_BACK.format("t")} AND t.queue > next.queue)
    FROM next WHERE next.queue IS NOT NULL)
SELECT queue FROM next WHERE queue IS NOT NULL
"""

#: What must not run now leaves the windows and lines of its queue; the reconciler hints it when
#: it may. With `older_s` only what was hinted that long ago, else all that was not set aside yet.
SET_ASIDE: LiteralString = f"""
WITH idle AS (
  SELECT t.id FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id
   WHERE t.status = 'queued' AND NOT ({RUNNABLE})
     AND (%(run)s::uuid IS NULL OR t.run_id = %(run)s)
     AND (%(project)s::int IS NULL OR t.project_id = %(project)s)
     AND (t.hinted_at > to_timestamp(0) OR t.hinted_at IS NULL AND %(older_s)s::float IS NULL)
     AND (%(older_s)s::float IS NULL
          OR t.hinted_at < now() - make_interval(secs => %(older_s)s::float))
   ORDER BY t.run_id, t.number LIMIT %(limit)s
     FOR NO KEY UPDATE OF t SKIP LOCKED)
UPDATE tasks_task t SET hinted_at = to_timestamp(0), hints = 0 FROM idle WHERE t.id = idle.id
RETURNING t.id
"""

#: Its hint came to nothing although it is queued: it leaves the window, and is hinted again soon.
FORGET: LiteralString = """
UPDATE tasks_task SET hinted_at = to_timestamp(0)
 WHERE id = %(id)s AND status = 'queued' AND hinted_at > to_timestamp(0)
"""

#: What became of the task of a hint that led to nothing.
SPENT: LiteralString = f"""
SELECT t.status, t.queue, {LEFT} AS hints_left FROM tasks_task t WHERE t.id = %(id)s
"""

#: How many tasks come before each of the queued ones among `ids`: those that are hinted, those that are held back (looked
#: for up to `reach`), and how many of these became ready after it did.
PLACE: LiteralString = f"""
WITH me AS (
  SELECT t.id, t.queue, t.priority, t.ready_at, t.hinted_at IS NULL AS held
    FROM tasks_task t WHERE t.id = ANY(%(ids)s::uuid[]) AND t.status = 'queued'),
able AS (SELECT DISTINCT me.queue, %(reach)s AS reach FROM me),
{FAIR},
line AS MATERIALIZED (
  SELECT f.id, f.queue, f.priority, f.ready_at,
         row_number() OVER (PARTITION BY f.queue
                            ORDER BY f.priority DESC, f.turn, f.since, f.payer) AS place
    FROM fair f)
SELECT me.id,
       (SELECT count(*) FROM tasks_task o
         WHERE o.queue = me.queue AND {HINTED.format("o")} AND o.id <> me.id
           AND (o.priority > me.priority
                OR o.priority = me.priority AND (me.held OR o.ready_at < me.ready_at)))::int
         AS hinted,
       before.held_back, before.younger
  FROM me LEFT JOIN line mine ON mine.id = me.id, LATERAL (
    SELECT count(*)::int AS held_back,
           (count(*) FILTER (WHERE l.priority = me.priority
                               AND l.ready_at > me.ready_at))::int AS younger
      FROM line l
     WHERE l.queue = me.queue
       AND CASE WHEN me.held THEN l.place < COALESCE(mine.place, %(reach)s + 1)
                ELSE l.priority > me.priority END) before
"""
