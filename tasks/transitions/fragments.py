"""What several statements share."""

from __future__ import annotations

from typing import LiteralString

# How far below a task a chain that carried it can reach (see tasks.segments.MAX_CHAIN): joins
# within that distance lose their carrier when the task ends in an unusual way. A deeper one, in
# nested chords, is hinted by the reconciler.
REACH: LiteralString = "11"

CLAIM_SET: LiteralString = """
   SET status = 'running', fence = t.fence + 1, session_id = %(session)s,
       started_at = clock_timestamp(), wake_at = NULL, for_agent = NULL, for_until = NULL,
       lease_until = clock_timestamp()
                     + make_interval(secs => least(t.timeout_s, t.heartbeat_s))
"""

# Addressed to this agent (a), or to nobody; one with a sticky key must be addressed first.
MAY_HAVE: LiteralString = """
       (t.for_agent = a.id OR t.for_until <= now() OR t.for_agent IS NULL AND NOT t.flow ? 'sticky')
"""

# What is due may start: the run runs (or ends, and this belongs to its end), nobody paused it.
RUNNABLE: LiteralString = """
       (r.status = 'running' OR r.status = 'cancelling' AND t.phase <> 'main')
   AND NOT EXISTS (SELECT FROM tasks_pause p
                    WHERE p.project_id = t.project_id AND p.workflow IN ('', r.workflow))
"""

# Of a queued task (the alias is filled in): a message may lie in the broker, or it waits for its
# turn in the database. See `turns`.
HINTED: LiteralString = "{0}.status = 'queued' AND {0}.hinted_at > to_timestamp(0)"
# The same, but those that wait for one agent alone: they must not keep others waiting.
IN_WINDOW: LiteralString = HINTED + " AND ({0}.for_agent IS NULL OR {0}.for_until IS NOT NULL)"
HELD_BACK: LiteralString = "{0}.status = 'queued' AND {0}.hinted_at IS NULL"

#: The queue in which the hint of a queued task lies: its agent's own one (`agents.queues.own`) when
#: it is addressed.
HOME: LiteralString = "COALESCE('@' || t.for_agent, t.queue)"

# How many hints the window of `t`'s queue has left beside its own, counted up to `low`; NULL: nothing
# is held back there.
LEFT: LiteralString = f"""
       (SELECT (SELECT count(*) FROM (
                  SELECT FROM tasks_task o
                   WHERE o.queue = t.queue AND {IN_WINDOW.format("o")}
                     AND o.priority >= top.priority AND o.id <> t.id
                   LIMIT %(low)s + 1) counted)
          FROM (SELECT h.priority FROM tasks_task h
                 WHERE h.queue = t.queue AND {HELD_BACK.format("h")}
                 ORDER BY h.priority DESC LIMIT 1) top)
"""

#: A resource that the task names stands behind an open circuit breaker.
SHUT_OFF: LiteralString = """
       (t.flow ? 'resources'
        AND EXISTS (SELECT FROM agents_breaker b
                     WHERE b.project_id = t.project_id AND b.kind = 'resource'
                       AND b.state = 'open' AND t.flow->'resources' ? b.name))
"""

#: How many tasks more the circuit breaker of agent `a` allows its session `s`; NULL: any number.
PLACES_LEFT: LiteralString = """
       CASE WHEN a.places IS NOT NULL THEN a.places - (
         SELECT count(*) FROM tasks_task h
          WHERE h.session_id = s.id AND h.status = 'running') END
"""

LIVE: LiteralString = "('pending', 'queued', 'running', 'waiting', 'retrying')"

# All that the holder of an attempt needs.
CLAIMED: LiteralString = """
       t.id, t.run_id, t.project_id, t.key, t.uses, t.capability, t.requires, t.queue,
       t.attempt, t.fence,
       t.priority, t.timeout_s, t.inputs::json, t.outputs_template::json, t.retry::json,
       t.flow::json, t.names::json, t.tried_before,
       r.inputs::json AS run_inputs, r.workflow,
       (SELECT json_object_agg(u.key, json_build_object(
                 'result', u.result, 'outputs', u.outputs, 'result_ref', u.result_ref,
                 'status', u.status, 'error', u.error))
          FROM tasks_task u WHERE u.run_id = t.run_id AND u.number = ANY(t.reads)) AS upstream
"""

# What dispatch must know of a task that became ready.
READY: LiteralString = """t.id, t.run_id, t.project_id, t.number, t.attempt, t.queue,
       t.capability, t.priority, t.uncarried, t.in_degree, t.successors,
       t.flow ?| '{prefers,sticky}' AS wishes"""

READY_OF_MADE: LiteralString = """m.id, m.run_id, m.project_id, m.number, m.attempt, m.queue,
       m.capability, m.priority, m.uncarried, m.in_degree, m.successors,
       m.flow ?| '{prefers,sticky}' AS wishes"""

# A run's end: its last open sink decides, by the first error that was recorded. A run with an
# epilogue stays as it is: `tasks.epilogue` goes on.
STAYS: LiteralString = """
       (s.n = 0 OR r.open_sinks > s.n OR r.epilogue
        OR r.status NOT IN ('created', 'running', 'paused'))
"""

VERDICT: LiteralString = """
         CASE WHEN COALESCE(r.error, s.error) IS NULL THEN 'completed'
              WHEN COALESCE(r.error, s.error)->'cancelled' = 'true' THEN 'cancelled'
              ELSE 'failed' END
"""

END_RUN: LiteralString = f"""
       open_sinks = r.open_sinks - s.n,
       status = CASE WHEN {STAYS} THEN r.status ELSE {VERDICT} END,
       completed_at = CASE WHEN {STAYS} THEN r.completed_at ELSE clock_timestamp() END
"""

ENDED: LiteralString = """
       r.id, r.project_id, r.workflow, r.status, r.open_sinks, r.parent_task_id, r.limit_key
"""
