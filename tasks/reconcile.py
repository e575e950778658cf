"""Repairs: each step does one bounded batch and returns whether there may be more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from agents import sessions
from opscore.config import load_config
from opscore.database import Row, query, release
from opscore.errors import ConflictError
from opscore.logs import get_logger
from tasks import (
    backlog,
    broker,
    control,
    deciding,
    epilogue,
    inbox,
    items,
    limits,
    losses,
    parking,
    steps,
    subruns,
)
from tasks.dispatch import Ready, advance, refill
from tasks.models import Task
from tasks.reports import fail, fail_queued, give_up
from tasks.transitions import addressing, repairs, runs, work

log = get_logger(__name__)

#: Rows that one step takes at once; their locks are held for a few ms.
BATCH = 500


def reconcile() -> None:
    """Do every repair until nothing is due. Any number of these at once are harmless."""
    steps.run(STEPS)


def give_back_lost() -> bool:
    """Give back what sessions held that have ended."""
    return give_back(None)


def give_back(session_ids: Sequence[UUID] | None) -> bool:
    """Give back what these ended sessions hold (None: all); fail what was lost too often."""
    row = query(
        repairs.GIVE_BACK,
        {
            "sessions": None if session_ids is None else list(session_ids),
            "max_losses": load_config().max_losses,
        },
    )[0]
    for lost in row["ready"]:
        log.warning(
            "task.lost", task=lost["id"], run=lost["run_id"], key=lost["key"], losses=lost["losses"]
        )
    advance([Ready.of(lost) for lost in row["ready"]], again=True)
    for task_id, fence in row["poison"]:
        _guarded(_fail_poison, UUID(task_id), fence)
    return len(row["ready"]) + len(row["poison"]) >= BATCH


def _fail_poison(task_id: UUID, fence: int) -> None:
    losses = load_config().max_losses + 1
    message = f"its agent died {losses} times while it ran this task"
    try:
        give_up(task_id, fence, {"type": "lost", "message": message}, outcome="lost")
    except ConflictError:
        log.debug("poison.moved_on", task=str(task_id))


def free_addressed() -> bool:
    """Send on what was addressed to agents that are gone, or that did not take it in time."""
    return _hint(addressing.FORSAKEN, {"limit": BATCH}, again=True)


def fail_overdue() -> bool:
    """Fail attempts past their deadline and have their processes killed."""
    rows = query(repairs.OVERDUE, {"limit": BATCH})
    for row in rows:
        _guarded(_fail_overdue, row)
    return len(rows) >= BATCH


def _fail_overdue(row: Row) -> None:
    error = _overdue(row)
    try:
        fail(row["id"], row["fence"], error, outcome="timeout", waiting=True)
    except ConflictError:
        return
    if row["body"]:
        control.cancel_orphans([row["body"]])
    held = Task.objects.filter(session_id=row["session_id"], status="running")
    # A process that has gone on to its next task is not stuck in this one.
    if row["session_id"] and not held.exists():
        sessions.condemn([row["session_id"]], f"task {row['id']} {error['message']}")


def _overdue(row: Row) -> dict[str, str]:
    if row["ran_out"] or row["heartbeat_s"] is None:
        return {"type": "timeout", "message": f"took longer than {row['timeout_s']:g} s"}
    message = f"no sign of life for {row['heartbeat_s']:g} s"
    return {"type": "heartbeat_timeout", "message": message}


def fail_queued_too_long() -> bool:
    """Fail tasks that no agent took in time."""
    rows = query(repairs.QUEUED_TOO_LONG, {"limit": BATCH})
    for row in rows:
        _guarded(_fail_queued, row)
    return len(rows) >= BATCH


def _fail_queued(row: Row) -> None:
    message = f"no agent took it within {row['queue_timeout_s']:g} s"
    error = {"type": "queue_timeout", "message": message}
    fail_queued(row["id"], row["fence"], error, outcome="timeout")


def give_back_unnamed() -> bool:
    """Give back what polling agents hold without ever naming it."""
    return losses.give_back_unnamed()


def force_cancelled() -> bool:
    """Have processes killed that still work on what was cancelled."""
    return control.force_cancelled(BATCH)


def wake_retries() -> bool:
    """Queue the retries whose backoff is over."""
    return _hint(repairs.WAKE, {"limit": BATCH, "id": None})


def settle_breakers() -> bool:
    """Let probes through, park before open breakers and let go behind closed ones."""
    return parking.settle()


def end_waits() -> bool:
    """Go on with waits that are over."""
    return deciding.settle_due(BATCH)


def decide_left_over() -> bool:
    """Decide what was released and left undecided by a process that died."""
    rows = query(work.UNDECIDED, {"run": None, "limit": BATCH})
    deciding.settle([row["id"] for row in rows])
    return False


def follow_up() -> bool:
    """Go on where the news of an end was lost: lists, slots, sub-runs, signals, epilogues."""
    for task_id in items.gatherable():
        _guarded(items.gather, task_id)
    _guarded(limits.admit_all)
    for project_id, key in limits.waiting_run_keys():
        _guarded(control.admit_runs, project_id, key)
    for run_id in subruns.unreported():
        _guarded(subruns.report, run_id)
    _guarded(control.cancel_orphans, subruns.orphans())
    _guarded(inbox.deliver_all)
    for run_id in epilogue.pending():
        _guarded(epilogue.go_on, run_id)
    return False


def _guarded(verb: Callable[..., object], *args: object) -> None:
    """Do one repair; one that breaks must not stop those of others."""
    try:
        verb(*args)
    except Exception:
        log.exception("repair.failed", verb=verb.__name__, of=str(args))
        release()


def notice_broker_loss() -> bool:
    """Forget all hints when the broker has lost its memory, so that they are sent again."""
    if broker.lost_memory():
        log.warning("broker.lost_memory")
        query(repairs.FORGET_HINTS, {"queues": None, "run": None, "project": None})
        # Not before: whoever is cut off here must leave the loss to be seen by the next one.
        broker.remember()
    return False


def repeat_hints() -> bool:
    """Send again what is queued and was not taken for too long."""
    stale_s = load_config().hint_stale_s
    backlog.set_aside(older_s=stale_s, limit=BATCH)
    queued = {
        row["queue"]: row["tasks"] for row in query(repairs.STALE_QUEUES, {"stale_s": stale_s})
    }
    if not queued:
        return False
    lengths = broker.lengths(queued)
    held = [name for name, tasks in queued.items() if lengths.get(name, 0) >= tasks]
    rows = query(
        repairs.REHINT,
        {"limit": BATCH, "stale_s": stale_s, "held": held, "run": None, "project": None},
    )
    advance([Ready.of(row) for row in rows if not row["held"]], again=True)
    return len(rows) >= BATCH


def fill_windows() -> bool:
    """Hint what is held back in queues that have room for it."""
    refill(backlog.held_back(sessions.served_slots()))
    return False


def finish_cancels() -> bool:
    """Finish cancels that were cut short between their two transactions."""
    for row in query(runs.HALF_CANCELLED, {}):
        _guarded(control.finish_cancel, row["id"])
    return False


def _hint(statement: str, params: dict[str, object], *, again: bool = False) -> bool:
    rows = query(statement, params)
    advance([Ready.of(row) for row in rows], again=again)
    return len(rows) >= BATCH


STEPS: tuple[steps.Step, ...] = (
    give_back_lost,
    free_addressed,
    fail_overdue,
    # After what is overdue: that fails, as an attempt.
    give_back_unnamed,
    fail_queued_too_long,
    force_cancelled,
    wake_retries,
    settle_breakers,
    end_waits,
    decide_left_over,
    follow_up,
    notice_broker_loss,
    repeat_hints,
    fill_windows,
    finish_cancels,
)
