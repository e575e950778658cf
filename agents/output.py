"""What agents wrote to stdout and stderr: asked for here, answered by their host's supervisor.

The files lie on the agents' hosts. A supervisor writes the end of one to the database when
somebody asks for it, and when the agent's process ends; nobody asks, nothing is written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from agents import news
from agents.models import Agent, AgentOutput
from opscore.database import query

#: What is kept of one agent's output in the database.
MAX_BYTES = 64 * 1024
MAX_LINES = 1000
_PATIENCE_S = 2.0
_POLL_S = 0.02

_ASK = """
INSERT INTO agents_agentoutput (agent_id, text, asked_at) VALUES (%(agent)s, '', now())
ON CONFLICT (agent_id) DO UPDATE SET asked_at = now() RETURNING asked_at"""
_ASKED = """
SELECT a.id, a.name, p.slug AS project FROM agents_agentoutput o
  JOIN agents_agent a ON a.id = o.agent_id AND a.host = %(host)s::text
  JOIN opscore_project p ON p.id = a.project_id
 WHERE o.asked_at > coalesce(o.written_at, '-infinity')"""
_WRITE = """
INSERT INTO agents_agentoutput (agent_id, text, written_at)
SELECT a.id, x.text, now() FROM jsonb_to_recordset(%(rows)s::jsonb) AS x(agent uuid, text text)
  JOIN agents_agent a ON a.id = x.agent ORDER BY a.id
ON CONFLICT (agent_id) DO UPDATE SET text = excluded.text, written_at = excluded.written_at"""


@dataclass(frozen=True)
class Tail:
    """The end of an agent's output."""

    lines: list[str]
    written_at: datetime | None
    """When its supervisor told; None: nobody has kept anything yet."""
    is_fresh: bool
    """False: its supervisor did not answer, this is what was told last."""


@dataclass(frozen=True)
class Question:
    """An agent whose output somebody wants to see."""

    agent_id: UUID
    name: str
    project: str
    """Slug."""


def tail(agent: Agent, lines: int, patience_s: float = _PATIENCE_S) -> Tail:
    """Return the last lines of an agent's output, waiting that long for its supervisor."""
    asked_at = query(_ASK, {"agent": agent.pk})[0]["asked_at"]
    news.publish()
    give_up_at = time.monotonic() + patience_s
    while True:
        output = AgentOutput.objects.get(pk=agent.pk)
        is_fresh = output.written_at is not None and output.written_at >= asked_at
        if is_fresh or time.monotonic() > give_up_at:
            return Tail(output.text.splitlines()[-lines:], output.written_at, is_fresh)
        time.sleep(_POLL_S)


def asked(host: str) -> list[Question]:
    """Return the agents of a host whose output somebody waits for."""
    return [Question(*row.values()) for row in query(_ASKED, {"host": host})]


def write(texts: Mapping[UUID, str]) -> None:
    """Keep the ends of these agents' outputs; agents that were deleted are left out."""
    rows = [{"agent": str(agent_id), "text": text} for agent_id, text in texts.items()]
    if rows:
        query(_WRITE, {"rows": json.dumps(rows)})
