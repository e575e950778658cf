"""What the end of an attempt says about its agent and about the resources that it used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from agents import breakers
from opscore.database import Row
from tasks import parking

#: Errors of ours: nobody outside was asked.
_OUR_OWN = frozenset({"no_handler", "expression", "queue_timeout", "internal"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """One ended attempt, as far as breakers want to know of it."""

    project_id: int
    started_at: datetime
    resources: Sequence[str] = ()
    session_id: UUID | None = None
    """Of the agent whose breaker counts it; None: this says nothing about the agent."""
    error: str | None = None
    """None: it completed."""
    retry_after_s: float | None = None


def completed(rows: Sequence[Sequence[Any]]) -> list[Outcome]:
    """Read what COMPLETE told; leave out what no breaker counts, which is nearly always all."""
    watched = breakers.watched()
    if not watched.sessions and not watched.resources:
        return []
    return [found for row in rows if (found := _completed(row, watched))]


def _completed(row: Sequence[Any], watched: breakers.Watched) -> Outcome | None:
    project_id, session, resources, started_at = row
    named = [name for name in resources or () if (project_id, name) in watched.resources]
    by = UUID(session) if session else None
    by = by if by in watched.sessions else None
    if started_at is None or not (named or by):
        return None
    return Outcome(project_id, datetime.fromisoformat(started_at), named, by)


def failed(row: Row, error: Mapping[str, Any], outcome: str) -> list[Outcome]:
    """Read a failed attempt; nothing when it says nothing about anybody but the task.

    A time-out counts for the agent. For each resource every failure does, unless the error says
    `retryable: false` (it is the task's own fault) or is one of the platform's.
    """
    if row["status"] != "running" or row["started_at"] is None:
        return []
    kind = str(error.get("type", ""))
    is_foreign = error.get("retryable") is not False and kind not in _OUR_OWN
    resources = row["resources"] or () if is_foreign else ()
    session = row["session_id"] if outcome == "timeout" else None
    if not resources and session is None:
        return []
    said = f"{kind}: {error.get('message', '')}"[:300]
    wait_s = retry_after_s(error)
    return [Outcome(row["project_id"], row["started_at"], resources, session, said, wait_s)]


def retry_after_s(error: Mapping[str, Any]) -> float | None:
    """Return how long an error asks to be left alone; None when it does not."""
    said = error.get("retry_after_s")
    if isinstance(said, bool) or not isinstance(said, int | float) or not math.isfinite(said):
        return None
    return float(said)


def note(outcomes: Sequence[Outcome]) -> None:
    """Tell the breakers, then park or let go what they changed. Not within a transaction."""
    changed = [_tell(found) for found in outcomes]
    if any(changed):
        parking.settle()


def _tell(found: Outcome) -> bool:
    told = [("resource", name) for name in found.resources]
    if found.session_id and (agent := breakers.agent_of(found.session_id)):
        told.append(("agent", agent[1]))
    # Each is told, whatever came of the others.
    changed = [_count(found, kind, name) for kind, name in told]
    return any(changed)


def _count(found: Outcome, kind: str, name: str) -> bool:
    if found.error is None:
        return breakers.attempt_succeeded(found.project_id, kind, name, started_at=found.started_at)
    return breakers.attempt_failed(
        found.project_id,
        kind,
        name,
        started_at=found.started_at,
        reason=found.error,
        retry_after_s=found.retry_after_s if kind == "resource" else None,
    )
