"""Health: who has been silent for too long has ended. Running it twice changes nothing."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction

from agents import registry, sessions, transitions, workload
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
            sessions.without_life(row["agent_id"] for row in rows), "unresponsive", reason=reason
        )
        after_commit(lambda: sessions.announce_end(ended, reason))
    return ended


def finish_drains() -> None:
    """End the drained agents that nobody watches and that have no task any more.

    Those that died or signed off meanwhile too, and those whose host is gone.
    """
    drained = Agent.objects.filter(status__in=("draining", "unresponsive"), desired="stopped")
    watched = registry.live_hosts().values("name")
    alone = list(drained.exclude(kind__in=SUPERVISED, host__in=watched))
    tasks = workload.running(alone)
    done = [agent.pk for agent in alone if not tasks[agent.pk]]
    if not done:
        return
    with transaction.atomic():
        live = AgentSession.objects.filter(agent__in=done, ended_at=None)
        sessions.end(live.values_list("id", flat=True), "drained", lost=False)
        transitions.change(done, "terminated", reason="drained")
