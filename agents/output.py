"""What agents wrote to stdout and stderr: asked for here, answered by their host's supervisor.

The files lie on the agents' hosts. A supervisor writes the end of one to the database when
somebody asks for it, and when the agent's process ends; nobody asks, nothing is written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from agents import news, registry
from agents.models import Agent
from opscore.database import query

#: What is kept of one agent's output in the database.
MAX_BYTES = 64 * 1024
MAX_LINES = 1000
#: Seconds in which a supervisor should answer.
PATIENCE_S = 2.0
#: What was told so short a time ago is told again.
_FRESH_S = 1.0
_FIRST_POLL_S, _LAST_POLL_S = 0.02, 0.2

_TOLD = """
SELECT text, written_at, coalesce(written_at >= asked_at, false) AS has_answered,
       coalesce(written_at > now() - make_interval(secs => %(fresh)s::float), false) AS is_new
  FROM agents_agentoutput WHERE agent_id = %(agent)s"""
_ASK = """
INSERT INTO agents_agentoutput (agent_id, text, asked_at) VALUES (%(agent)s, '', now())
ON CONFLICT (agent_id) DO UPDATE SET asked_at = now()"""
_ANSWERED = """
SELECT agent_id FROM agents_agentoutput
 WHERE agent_id = ANY(%(agents)s::uuid[]) AND written_at >= asked_at"""
_ASKED = """
SELECT a.id, a.name, a.project_id, p.slug AS project FROM agents_agentoutput o
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
    project_id: int
    project: str
    """Slug."""


def tail(agent: Agent, lines: int, patience_s: float = PATIENCE_S) -> Tail:
    """Return the last lines of an agent's output, waiting that long for its supervisor."""
    if ask(agent):
        _wait(agent, time.monotonic() + patience_s)
    return told(agent, lines)


def ask(agent: Agent) -> bool:
    """Ask an agent's supervisor for its output; tell whether an answer will come.

    Nobody is asked where it does not live, or has told within this second.
    """
    rows = query(_TOLD, {"agent": agent.pk, "fresh": _FRESH_S})
    if (rows and rows[0]["is_new"]) or not registry.is_watched(agent):
        return False
    query(_ASK, {"agent": agent.pk})
    news.publish(agent.host)
    return True


def answered(ids: Sequence[UUID]) -> set[UUID]:
    """Return those of the agents whose supervisors have told since they were asked."""
    return {row["agent_id"] for row in query(_ANSWERED, {"agents": list(ids)})}


def told(agent: Agent, lines: int) -> Tail:
    """Return the last lines that are known, without asking."""
    rows = query(_TOLD, {"agent": agent.pk, "fresh": _FRESH_S})
    if not rows:
        return Tail([], None, is_fresh=False)
    [row] = rows
    is_fresh = row["is_new"] or (row["has_answered"] and registry.is_watched(agent))
    return Tail(row["text"].splitlines()[-lines:], row["written_at"], is_fresh)


def _wait(agent: Agent, give_up_at: float) -> None:
    pause_s = _FIRST_POLL_S
    while not answered([agent.pk]) and time.monotonic() < give_up_at:
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _LAST_POLL_S)


def asked(host: str) -> list[Question]:
    """Return the agents of a host whose output somebody waits for."""
    return [Question(*row.values()) for row in query(_ASKED, {"host": host})]


def write(texts: Mapping[UUID, str]) -> None:
    """Keep the ends of these agents' outputs; agents that were deleted are left out."""
    rows = [{"agent": str(agent_id), "text": text} for agent_id, text in texts.items()]
    if rows:
        query(_WRITE, {"rows": json.dumps(rows)})
