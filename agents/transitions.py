"""The only writer of an agent's status: compare-and-set, its event and its log line in one."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from agents.states import AGENT
from opscore.database import Row, after_commit, query
from opscore.logs import get_logger

log = get_logger(__name__)

#: Statuses that are worth a line in an agent's history; the others only pass by.
_NOTED = frozenset({"active", "draining", "restarting", "unresponsive", "error", "terminated"})

_CHANGE = """
WITH old AS (
    SELECT id, status FROM agents_agent
    WHERE id = ANY(%(ids)s::uuid[]) AND status = ANY(%(sources)s::text[])
    ORDER BY id FOR UPDATE
), changed AS (
    UPDATE agents_agent a
    SET status = %(target)s::text, reason = %(reason)s::text, changed_at = now(),
        restarts = restarts + %(restarts)s::int
    FROM old WHERE a.id = old.id
    RETURNING a.id, a.project_id, a.name, old.status AS source
), noted AS (
    INSERT INTO opscore_event (project_id, at, kind, agent_id, actor, data)
    SELECT project_id, now(), 'agent.' || %(target)s::text, id, %(actor)s::text,
           jsonb_build_object('agent', name, 'from', source, 'reason', %(reason)s::text)
    FROM changed WHERE %(noted)s::bool
)
SELECT id, name, source FROM changed"""

_NOTE = """
INSERT INTO opscore_event (project_id, at, kind, agent_id, actor, data)
SELECT project_id, now(), %(kind)s::text, id, %(actor)s::text,
       jsonb_build_object('agent', name, 'reason', %(reason)s::text)
FROM agents_agent WHERE id = ANY(%(ids)s::uuid[])"""


def change(
    agent_ids: Iterable[UUID],
    target: str,
    *,
    reason: str = "",
    actor: str = "",
    crashed: bool = False,
    only_from: Iterable[str] = AGENT.statuses,
) -> set[UUID]:
    """Move agents to `target` from wherever the table allows it; return those that moved.

    `crashed` counts one more restart after a crash. An agent in another status, or in none
    of `only_from`, is left alone.
    """
    ids = list(agent_ids)
    if not ids:
        return set()
    rows = query(
        _CHANGE,
        {
            "ids": ids,
            "target": target,
            "sources": [name for name in AGENT.sources(target) if name in set(only_from)],
            "reason": reason,
            "actor": actor,
            "restarts": int(crashed),
            "noted": target in _NOTED,
        },
    )
    after_commit(lambda: _tell(rows, target, reason))
    return {row["id"] for row in rows}


def begin(agent_ids: Iterable[UUID]) -> None:
    """Move agents to `initializing` from any status: a new life of each begins."""
    ids = list(agent_ids)
    # What still looks alive was not seen to end: its supervisor died or it registers again.
    change(
        ids,
        "restarting",
        reason="a new session begins",
        only_from=("active", "draining", "unresponsive"),
    )
    change(ids, "initializing")


def note(agent_ids: Iterable[UUID], kind: str, *, reason: str = "", actor: str = "") -> None:
    """Write an event about agents whose status does not change by it (`agent.lost`)."""
    ids = list(agent_ids)
    query(_NOTE, {"ids": ids, "kind": kind, "reason": reason, "actor": actor})
    after_commit(lambda: [log.info(kind, agent_id=str(key), reason=reason) for key in ids])


def _tell(rows: list[Row], target: str, reason: str) -> None:
    write = log.warning if target in {"unresponsive", "error", "restarting"} else log.info
    for row in rows:
        write(
            f"agent.{target}",
            agent_id=str(row["id"]),
            agent=row["name"],
            was=row["source"],
            **({"reason": reason} if reason else {}),
        )
