"""Health: who has been silent for too long has ended. Running it twice changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django.db import transaction

from agents import sessions, transitions, workload
from agents.models import Agent, AgentSession
from agents.states import SUPERVISED
from opscore.config import load_config
from opscore.database import after_commit, query

_SILENT = """
SELECT s.id, s.agent_id FROM agents_agentsession s
WHERE s.ended_at IS NULL
  AND s.seen_at < now() - make_interval(secs => %(ttl)s::float)
  -- While the database was away nobody could beat: everybody gets a fresh term.
  AND pg_postmaster_start_time() < now() - make_interval(secs => %(ttl)s::float)
ORDER BY s.id FOR UPDATE SKIP LOCKED"""


def check() -> list[UUID]:
    """End the sessions that were silent for `OPSCORE_SESSION_TTL_S`; return them.

    Their agents are `unresponsive` until a new session begins; what they held is given back.
    """
    ttl_s = load_config().session_ttl_s
    with transaction.atomic():
        rows = query(_SILENT, {"ttl": ttl_s})
        if not rows:
            return []
        reason = f"silent for {ttl_s:g} s"
        ended = sessions.close([row["id"] for row in rows], reason)
        transitions.change(
            _without_life(row["agent_id"] for row in rows), "unresponsive", reason=reason
        )
        after_commit(lambda: sessions.announce_end(ended, reason))
    return ended


def finish_drains() -> None:
    """End the drained agents that nobody watches and that have no task any more."""
    draining = Agent.objects.filter(status="draining", desired="stopped", sessions__ended_at=None)
    alone = list(draining.exclude(kind__in=SUPERVISED).distinct())
    tasks = workload.running(alone)
    done = [agent.pk for agent in alone if not tasks[agent.pk]]
    if not done:
        return
    with transaction.atomic():
        live = AgentSession.objects.filter(agent__in=done, ended_at=None)
        sessions.end(live.values_list("id", flat=True), "drained", lost=False)
        transitions.change(done, "terminated", reason="drained")


def _without_life(agent_ids: Iterable[UUID]) -> list[UUID]:
    rows = query(
        """SELECT id FROM agents_agent a WHERE id = ANY(%(ids)s::uuid[]) AND NOT EXISTS (
               SELECT 1 FROM agents_agentsession s
               WHERE s.agent_id = a.id AND s.ended_at IS NULL)""",
        {"ids": list(agent_ids)},
    )
    return [row["id"] for row in rows]
