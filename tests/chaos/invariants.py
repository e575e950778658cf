"""What must hold whatever dies: an independent observer in the database, and what it is asked.

The observer is a trigger of the test's own, so that it also sees what an engine with a fault would
write twice or overwrite. Each invariant is one statement that returns its violations; none is good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, LiteralString

Ask = Callable[[str, Mapping[str, Any]], list[dict[str, Any]]]

_OVER: LiteralString = "('completed', 'failed', 'cancelled', 'skipped')"

OBSERVE: LiteralString = f"""
CREATE TABLE chaos_effect (
  run_id uuid NOT NULL, key text NOT NULL, task_id uuid NOT NULL, attempt int NOT NULL,
  exact bool NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE chaos_start (
  task_id uuid NOT NULL, fence int NOT NULL, session_id uuid, at timestamptz NOT NULL);
CREATE TABLE chaos_end (
  task_id uuid NOT NULL, was text NOT NULL, status text NOT NULL, at timestamptz NOT NULL);
CREATE INDEX ON chaos_start (task_id);
CREATE INDEX ON chaos_end (task_id);
CREATE FUNCTION chaos_observe() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.status = 'running' AND (OLD.status <> 'running' OR OLD.fence <> NEW.fence) THEN
    INSERT INTO chaos_start VALUES (NEW.id, NEW.fence, NEW.session_id, clock_timestamp());
  END IF;
  IF NEW.status <> OLD.status AND (NEW.status IN {_OVER} OR OLD.status IN {_OVER})
     OR NEW.status IN {_OVER} AND OLD.completed_at IS DISTINCT FROM NEW.completed_at THEN
    INSERT INTO chaos_end VALUES (NEW.id, OLD.status, NEW.status, clock_timestamp());
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER chaos_observe AFTER UPDATE ON tasks_task
  FOR EACH ROW EXECUTE FUNCTION chaos_observe();
"""

FORGET: LiteralString = """
DROP FUNCTION chaos_observe CASCADE;
DROP TABLE chaos_effect, chaos_start, chaos_end
"""

#: Name -> statements; each returns rows (what, why).
INVARIANTS: dict[str, tuple[LiteralString, ...]] = {
    "lost": (
        """SELECT id AS what, 'run not ended: ' || status AS why
             FROM tasks_run WHERE completed_at IS NULL""",
        """SELECT id AS what, status || ': ' || coalesce(error->>'message', '') AS why
             FROM tasks_run WHERE completed_at IS NOT NULL AND status <> 'completed'
              AND status <> ALL(%(expected)s::text[])""",
        """SELECT t.id AS what, t.key || ' completed without its effect' AS why
             FROM tasks_task t LEFT JOIN chaos_effect e ON e.task_id = t.id
            WHERE t.status = 'completed' AND t.capability = 'chaos_exact' AND e.task_id IS NULL
              AND t.item_count IS NULL""",
        """SELECT label AS what, 'submitted and answered, but there is no such run' AS why
             FROM unnest(%(answered)s::text[]) AS label
            WHERE NOT EXISTS (SELECT FROM tasks_run r WHERE r.inputs->>'label' = label)""",
    ),
    "doubled": (
        """SELECT task_id AS what, count(*) || ' effects of ' || key AS why
             FROM chaos_effect WHERE exact GROUP BY run_id, key, task_id HAVING count(*) > 1""",
        """SELECT task_id AS what, count(*) || ' ends' AS why
             FROM chaos_end GROUP BY task_id HAVING count(*) > 1""",
        """SELECT min(id::text) AS what, count(*) || ' runs of one submission' AS why
             FROM tasks_run WHERE inputs ? 'label'
            GROUP BY inputs->>'label' HAVING count(*) > 1""",
    ),
    # A join that does not wait for all of its predecessors needs a rule of its own here.
    "out_of_order": (
        f"""SELECT t.id AS what, t.key || ' started before ' || p.key || ' was over' AS why
              FROM tasks_task p
              JOIN tasks_task t ON t.run_id = p.run_id AND t.number = ANY(p.successors)
              JOIN chaos_start s ON s.task_id = t.id
              LEFT JOIN (SELECT task_id, min(at) AS at FROM chaos_end
                          WHERE status IN {_OVER} GROUP BY task_id) e ON e.task_id = p.id
             WHERE e.at IS NULL OR s.at < e.at""",
    ),
    "stuck": (
        """SELECT t.id AS what, t.key || ' queued, last hinted at ' || coalesce(t.hinted_at::text, 'never') AS why
             FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id AND r.status = 'running'
            WHERE t.status = 'queued' AND coalesce(t.hinted_at, t.ready_at, t.created_at)
                  < now() - make_interval(secs => %(patience_s)s)""",
        """SELECT t.id AS what, t.key || ' running in no session' AS why
             FROM tasks_task t
             LEFT JOIN agents_agentsession s ON s.id = t.session_id AND s.ended_at IS NULL
            WHERE t.status = 'running' AND s.id IS NULL""",
        f"""SELECT r.id AS what, 'run lives without a live task' AS why
              FROM tasks_run r WHERE r.completed_at IS NULL
               AND NOT EXISTS (SELECT FROM tasks_task t
                                WHERE t.run_id = r.id AND t.status NOT IN {_OVER})""",
        f"""SELECT r.id AS what, 'run has ended, a task lives' AS why
              FROM tasks_run r WHERE r.completed_at IS NOT NULL
               AND EXISTS (SELECT FROM tasks_task t
                            WHERE t.run_id = r.id AND t.status NOT IN {_OVER})""",
    ),
}

#: Seconds from the kill of each agent that held a task to that task's next start.
_RECOVERIES: LiteralString = """
SELECT extract(epoch FROM min(s.at) - k.at)::float AS seconds
  FROM jsonb_to_recordset(%(kills)s::jsonb) AS k(pid int, at timestamptz)
  JOIN agents_agentsession a ON a.pid = k.pid AND a.started_at <= k.at
   AND (a.ended_at IS NULL OR a.ended_at >= k.at)
  JOIN tasks_attempt x ON x.session_id = a.id AND x.outcome = 'lost' AND x.ended_at >= k.at
  JOIN chaos_start s ON s.task_id = x.task_id AND s.fence > x.fence AND s.at >= k.at
 GROUP BY k.pid, k.at, x.task_id ORDER BY seconds
"""


def violations(
    ask: Ask,
    *,
    answered: list[str] | None = None,
    expected: tuple[str, ...] = (),
    patience_s: float = 10.0,
) -> dict[str, list[str]]:
    """Return the violations of each invariant as sentences, at most 100 of each statement.

    `answered`: labels of submissions that were acknowledged. `expected`: ends of runs that are
    right beside `completed`. `patience_s`: how long a hint may have been lost.
    """
    params = {"answered": answered or [], "expected": list(expected), "patience_s": patience_s}
    return {
        name: [
            f"{row['what']}: {row['why']}"
            for statement in statements
            for row in ask(f"{statement} LIMIT 100", params)
        ]
        for name, statements in INVARIANTS.items()
    }


def recoveries(ask: Ask, kills: str) -> list[float]:
    """Return the seconds that each task lost by a kill waited; `kills` is JSON: pid and at."""
    return [row["seconds"] for row in ask(_RECOVERIES, {"kills": kills})]
