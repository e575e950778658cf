"""Who could do a task: every agent that has its capability, and what keeps each from it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
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
    session_id: UUID | None
    """Its present life, if it takes work now."""
    lacks: tuple[str, ...]
    """Labels that a task requires and this agent does not have."""

    @property
    def able(self) -> bool:
        """Tell whether it may take the task as soon as it is free."""
        return self.session_id is not None and not self.paused and not self.lacks


_CANDIDATES = """
SELECT a.id, a.name, a.status, a.reason, a.paused, a.labels, s.id AS session_id
  FROM agents_agent a
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
            session_id=row["session_id"],
            lacks=tuple(sorted(set(requires) - set(row["labels"]))),
        )
        for row in rows
    ]
