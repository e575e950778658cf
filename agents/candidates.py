"""Who could do a task: every agent that has its capability, and what keeps each from it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from opscore.database import query


@dataclass(frozen=True)
class Candidate:
    """An agent that has a capability."""

    id: UUID
    name: str
    status: str
    reason: str
    """Why it is in this status."""
    paused: bool
    draining: bool
    """It ends when its tasks have, and takes no new ones."""
    breaker: str
    """The state of its circuit breaker."""
    breaker_until: datetime | None
    session_id: UUID | None
    """Its present life, if it takes work now."""
    places: int
    """Tasks that it has at once; one that never said so counts as one place."""
    lacks: tuple[str, ...]
    """Labels that a task requires and this agent does not have."""

    @property
    def able(self) -> bool:
        """Tell whether it may take the task as soon as it is free."""
        is_shut = self.paused or self.draining or self.breaker == "open"
        return self.session_id is not None and not is_shut and not self.lacks


_CANDIDATES = """
SELECT a.id, a.name, a.status, a.reason, a.paused, a.labels, s.id AS session_id,
       a.status IN ('draining') OR a.desired <> 'running' AND s.id IS NOT NULL AS draining,
       COALESCE(b.state, 'closed') AS breaker, b.until AS breaker_until,
       greatest(least(COALESCE(a.concurrency, s.slots), a.places), 1) AS places
  FROM agents_agent a
  LEFT JOIN agents_breaker b
    ON b.project_id = a.project_id AND b.kind = 'agent' AND b.name = a.name
  LEFT JOIN agents_agentsession s
    ON s.agent_id = a.id AND s.ended_at IS NULL AND s.ready_at IS NOT NULL
 WHERE a.project_id = %(project)s AND %(capability)s = ANY(a.capabilities)
   AND (a.status <> 'terminated' OR s.id IS NOT NULL)
 ORDER BY a.name
"""


def candidates(project_id: int, capability: str, requires: Collection[str]) -> list[Candidate]:
    """Return the agents that have the capability, those that will not come back left out."""
    rows = query(_CANDIDATES, {"project": project_id, "capability": capability})
    return [
        Candidate(
            id=row["id"],
            name=row["name"],
            status=row["status"],
            reason=row["reason"],
            paused=row["paused"],
            draining=row["draining"],
            breaker=row["breaker"],
            breaker_until=row["breaker_until"],
            session_id=row["session_id"],
            places=row["places"],
            lacks=tuple(sorted(set(requires) - set(row["labels"]))),
        )
        for row in rows
    ]
