"""Ends without a result: failed, cancelled, skipped; and what they mean for the tasks below."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction

from opscore.config import load_config
from opscore.database import Row, query
from opscore.logs import get_logger
from tasks.aftermath import Aftermath, tell
from tasks.joins import Spot, Spread, spread
from tasks.results import encode, storable
from tasks.transitions import runs, work

log = get_logger(__name__)


def end_task(
    task_id: UUID,
    *,
    fence: int | None,
    status: str,
    sources: Sequence[str],
    error: Mapping[str, Any],
    outcome: str = "",
    actor: str = "",
) -> bool:
    """End a task without a result and skip what depended on it; return whether it changed.

    One transaction, however much is skipped. `fence` None: whoever holds it.
    """
    kept = storable(error)
    with transaction.atomic():
        below = query(work.LOCK_DOWN, {"id": task_id})
        ended = query(
            work.END,
            {
                "id": task_id,
                "fence": fence,
                "status": status,
                "sources": list(sources),
                "error": encode(kept),
                "outcome": outcome,
                "actor": actor,
                "grace_s": load_config().cancel_grace_s,
            },
        )
        if not ended:
            return False
        if ended[0]["item_count"] is not None:
            cancel_items(task_id)
        reached = _spread(ended[0], below, status)
        closed = _close(ended[0], reached, status, kept)
        tell(_aftermath(ended[0], below, reached, closed))
    _log(ended[0], status, kept, len(reached.skipped))
    return True


def cancel_items(task_id: UUID) -> None:
    """Cancel the open items of a for_each task that ends (its row is locked)."""
    grace_s = load_config().cancel_grace_s
    rows = query(runs.CANCEL_ITEMS, {"id": task_id, "grace_s": grace_s})
    tell(
        Aftermath(
            freed=sorted(
                {(row["project_id"], row["limit_key"]) for row in rows if row["limit_key"]}
            ),
            orphaned=[row["id"] for row in rows if row["waits_for"] == "run"],
        )
    )


def tell_below(task_id: UUID) -> None:
    """Tell the tasks below one that was cancelled early, now that its needs have ended."""
    with transaction.atomic():
        below = query(work.LOCK_DOWN, {"id": task_id})
        for ended in query(work.ALL_NEEDS_ENDED, {"id": task_id}):
            reached = _spread(ended, below, "cancelled")
            closed = _close(ended, reached, "skipped", {})
            tell(_aftermath(ended, below, reached, closed))


def _spread(ended: Row, below: Sequence[Row], status: str) -> Spread:
    if ended["early"]:
        return Spread([], [], [])
    spots = {row["number"]: _spot(row) for row in below if row["id"] != ended["id"]}
    own = next(row for row in below if row["id"] == ended["id"])
    reached = spread(spots, status, own["successors"])
    skipped = {spot.number for spot in reached.skipped}
    if reached.changed:
        reason = {
            "type": f"upstream_{status}",
            "message": f"not run: {ended['key']} {_WAS[status]}",
        }
        rows = [
            {
                "number": spot.number,
                "pending": spot.pending,
                "failed": spot.failed,
                "skipped": spot.skipped,
                "error": reason if spot.number in skipped else None,
            }
            for spot in reached.changed
        ]
        query(work.SPREAD, {"run": ended["run_id"], "rows": json.dumps(rows)})
    return reached


_WAS = {"failed": "failed", "cancelled": "was cancelled", "skipped": "was skipped"}


def _spot(row: Row) -> Spot:
    return Spot(
        number=row["number"],
        join=row["join"],
        in_degree=row["in_degree"],
        pending=row["pending"],
        failed=row["needs_failed"],
        skipped=row["needs_skipped"],
        successors=row["successors"],
        is_sink=row["is_sink"],
        live=row["status"] == "pending",
        owes=row["owes"],
    )


def _close(ended: Row, reached: Spread, status: str, error: Mapping[str, Any]) -> list[Row]:
    own = ended["is_sink"] and not ended["early"]
    sinks = own + sum(spot.is_sink for spot in reached.skipped)
    # An item's failure is its for_each task's matter, and an undo fails after the run has.
    counts = status != "skipped" and ended["parent_id"] is None and ended["phase"] != "undo"
    if not sinks and not counts:
        return []
    # An agent may call its error as it likes, also `cancelled`.
    was = {"cancelled": True} if status == "cancelled" else {}
    told = json.dumps({**error, **was, "task": ended["key"]}) if counts else None
    return query(work.CLOSE_SINKS, {"run": ended["run_id"], "n": int(sinks), "error": told})


def _aftermath(
    ended: Row, below: Sequence[Row], reached: Spread, closed: Sequence[Row]
) -> Aftermath:
    ids = {row["number"]: row["id"] for row in below}
    return Aftermath(
        undecided=[ids[spot.number] for spot in reached.undecided],
        containers=[ended["parent_id"]] if ended["parent_id"] else [],
        freed=[(ended["project_id"], ended["limit_key"])] if ended["limit_key"] else [],
        orphaned=[ended["id"]] if ended["waited_for"] == "run" else [],
        ended_runs=[run for run in closed if run["open_sinks"] == 0],
    )


def _log(ended: Row, status: str, error: Mapping[str, Any], skipped: int) -> None:
    event = f"task.{status}"
    (log.info if status == "skipped" else log.warning)(
        event,
        task=str(ended["id"]),
        run=str(ended["run_id"]),
        key=ended["key"],
        skipped=skipped,
        type=str(error.get("type", "")),
        error=str(error.get("message", ""))[:300],
    )
