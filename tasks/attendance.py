"""Who waits for work: their sessions live, and one look serves all of them."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from agents import queues, sessions
from agents.models import AgentSession
from opscore import keys
from opscore.api.wakeups import Found
from opscore.config import load_config
from opscore.database import query
from tasks import claims, messages


@dataclass(frozen=True)
class Present:
    """A request that waits: a claim, or one for messages."""

    session_id: UUID
    agent_id: UUID
    key_id: int
    project_id: int
    capabilities: tuple[str, ...]


def present(session: AgentSession, key_id: int) -> Present:
    """Return what those who look for all know a session's request by."""
    words = tuple(session.agent.capabilities)
    return Present(session.pk, session.agent_id, key_id, session.project_id, words)


def kind_of(session: AgentSession) -> Hashable:
    """Return what decides, beside its capabilities, which tasks a session may have.

    Of two agents of one kind that both offer a capability, each may have the same of its tasks.
    """
    agent = session.agent
    return (session.project_id, frozenset(agent.labels), agent.paused, agent.places)


def load_of(session: AgentSession, limit: int) -> float:
    """Return which share of a session's places is taken; it would have `limit` tasks more."""
    taken = claims.taken(session.pk)
    return taken / max(session.agent.concurrency or taken + limit, 1)


class LookOut:
    """Looks for all claims that wait in this process.

    A claim that waits is a sign of life of its session: an idle agent needs no heartbeat.
    """

    def __init__(self) -> None:
        self._beat_at = float("-inf")

    def __call__(self, waiting: Sequence[Present]) -> Found:
        """Find who should look: there is work, or the session or key is no good any more."""
        gone = self._ended(waiting) | _without_key(waiting)
        return Found(_words(waiting), gone)

    def _ended(self, waiting: Sequence[Present]) -> set[Present]:
        # A session lives for the time of six beats: some may get lost.
        if time.monotonic() - self._beat_at < load_config().session_ttl_s / 6:
            return set()
        alive = sessions.beat({claim.session_id for claim in waiting})
        self._beat_at = time.monotonic()
        return {claim for claim in waiting if claim.session_id not in alive}


look_out = LookOut()


def look_for_messages(waiting: Sequence[Present]) -> Found:
    """Look for all that wait for messages: there are some, or a session or key is no good now."""
    ids = AgentSession.objects.filter(
        pk__in={claim.session_id for claim in waiting}, ended_at=None
    ).values_list("id", flat=True)
    alive = set(ids)
    ended = {claim for claim in waiting if claim.session_id not in alive}
    words = messages.announced({claim.agent_id for claim in waiting}, _offered(waiting))
    return Found(words, ended | _without_key(waiting))


def _without_key(waiting: Sequence[Present]) -> set[Present]:
    usable = keys.still_usable({claim.key_id for claim in waiting})
    return {claim for claim in waiting if claim.key_id not in usable}


def _words(waiting: Iterable[Present]) -> list[str]:
    pairs = _offered(waiting)
    rows = query(
        _QUEUED,
        {"projects": [project for project, _ in pairs], "words": [word for _, word in pairs]},
    )
    meant = query(_ADDRESSED, {"agents": sorted({claim.agent_id for claim in waiting})})
    return [row["word"] for row in rows] + [queues.own(row["agent_id"]) for row in meant]


def _offered(waiting: Iterable[Present]) -> list[tuple[int, str]]:
    return sorted({(claim.project_id, word) for claim in waiting for word in claim.capabilities})


# EXISTS stops at the first row: a long queue costs no more than a short one.
_QUEUED = """
SELECT DISTINCT w.word
  FROM unnest(%(projects)s::bigint[], %(words)s::text[]) AS w(project_id, word)
 WHERE EXISTS (SELECT FROM tasks_task t
                WHERE t.project_id = w.project_id AND t.capability = w.word
                  AND t.status = 'queued'
                  AND (t.for_agent IS NULL OR t.for_until <= now()))
"""

_ADDRESSED = """
SELECT DISTINCT for_agent AS agent_id FROM tasks_task
 WHERE status = 'queued' AND for_agent = ANY(%(agents)s::uuid[])
"""
