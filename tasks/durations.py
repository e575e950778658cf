"""How long tasks take, by the last ones of a capability."""

from __future__ import annotations

import time
from uuid import UUID

from opscore.database import query

#: How long an answer is used again: medians move slowly, and each one reads some thousand rows.
_CACHE_S = 2.0
_kept: dict[tuple[int, str], tuple[float, dict[UUID, float]]] = {}

# Of the last tasks of the project, not of all times: the answer must not cost more as years pass.
_BY_AGENT = """
SELECT s.agent_id, percentile_cont(0.5) WITHIN GROUP (ORDER BY d.took_s)::float AS median_s
  FROM (SELECT session_id, extract(epoch FROM completed_at - started_at) AS took_s
          FROM (SELECT * FROM tasks_task WHERE project_id = %(project)s
                 ORDER BY id DESC LIMIT 2000) recent
         WHERE capability = %(capability)s AND status = 'completed') d
  JOIN agents_agentsession s ON s.id = d.session_id
 GROUP BY s.agent_id
"""


def by_agent(project_id: int, capability: str) -> dict[UUID, float]:
    """Return each agent's median seconds for its latest tasks of a capability."""
    read_at, found = _kept.get((project_id, capability), (float("-inf"), {}))
    if time.monotonic() - read_at < _CACHE_S:
        return found
    rows = query(_BY_AGENT, {"project": project_id, "capability": capability})
    found = {row["agent_id"]: row["median_s"] for row in rows}
    _kept[project_id, capability] = (time.monotonic(), found)
    return found


def forget() -> None:
    """Empty this process's memory (tests change the database)."""
    _kept.clear()
