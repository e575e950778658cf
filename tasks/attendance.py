"""Who waits for work: their sessions live, and one look serves all of them."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from agents import sessions
from agents.models import AgentSession
from opscore import keys
from opscore.api.wakeups import Found
from opscore.config import load_config
from opscore.database import query


@dataclass(frozen=True)
class Present:
    """A claim that waits."""

    session_id: UUID
    key_id: int
    project_id: int
    capabilities: tuple[str, ...]


def present(session: AgentSession, key_id: int) -> Present:
    """Return what `look_out` knows a session's claim by."""
    return Present(session.pk, key_id, session.project_id, tuple(session.agent.capabilities))


def kind_of(session: AgentSession) -> Hashable:
    """Return what decides, beside its capabilities, which tasks a session may have.

    Of two agents of one kind that both offer a capability, each may have the same of its tasks.
    """
    agent = session.agent
    return (session.project_id, frozenset(agent.labels), agent.paused)


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


def _without_key(waiting: Sequence[Present]) -> set[Present]:
    usable = keys.still_usable({claim.key_id for claim in waiting})
    return {claim for claim in waiting if claim.key_id not in usable}


def _words(waiting: Iterable[Present]) -> list[str]:
    wanted = {(claim.project_id, word) for claim in waiting for word in claim.capabilities}
    pairs = sorted(wanted)
    rows = query(
        _QUEUED,
        {"projects": [project for project, _ in pairs], "words": [word for _, word in pairs]},
    )
    return [row["word"] for row in rows]


# EXISTS stops at the first row: a long queue costs no more than a short one.
_QUEUED = """
SELECT DISTINCT w.word
  FROM unnest(%(projects)s::bigint[], %(words)s::text[]) AS w(project_id, word)
 WHERE EXISTS (SELECT FROM tasks_task t
                WHERE t.project_id = w.project_id AND t.capability = w.word
                  AND t.status = 'queued')
"""
