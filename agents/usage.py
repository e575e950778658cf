"""Memory and CPU of supervised agents, as their supervisors sampled them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from opscore.database import query

_WRITE = """
INSERT INTO agents_agentusage (agent_id, memory, cpu_percent, sampled_at)
SELECT a.id, x.memory, x.cpu, now()
  FROM jsonb_to_recordset(%(rows)s::jsonb) AS x(agent uuid, memory bigint, cpu float)
  JOIN agents_agent a ON a.id = x.agent ORDER BY a.id
ON CONFLICT (agent_id) DO UPDATE
SET memory = excluded.memory, cpu_percent = excluded.cpu_percent, sampled_at = now()"""
_FORGET = "DELETE FROM agents_agentusage WHERE agent_id = ANY(%(ids)s::uuid[])"
_FORGET_HOST = """
DELETE FROM agents_agentusage u USING agents_agent a
 WHERE a.id = u.agent_id AND a.host = %(host)s::text"""


@dataclass(frozen=True)
class Usage:
    """What one agent's processes use."""

    memory: int
    """Resident bytes, pages that it shares with its siblings included."""
    cpu_percent: float
    """Of one core, over the time since the sample before."""


def write(samples: Mapping[UUID, Usage]) -> None:
    """Record samples, all in one statement."""
    rows = [
        {"agent": str(agent_id), "memory": found.memory, "cpu": round(found.cpu_percent, 2)}
        for agent_id, found in samples.items()
    ]
    if rows:
        query(_WRITE, {"rows": json.dumps(rows)})


def forget(agent_ids: list[UUID]) -> None:
    """Delete the samples of agents whose process has ended."""
    if agent_ids:
        query(_FORGET, {"ids": agent_ids})


def forget_host(host: str) -> None:
    """Delete what an earlier supervisor of the host has sampled."""
    query(_FORGET_HOST, {"host": host})
