"""What becomes of a slot: its run starts, it waits, is skipped or fails."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db.models import Q
from django.db.models.functions import Now

from opscore.database import after_commit
from opscore.errors import ConflictError
from opscore.logs import get_logger
from tasks.control import cancel_run
from tasks.models import Run
from tasks.states import RUN
from workflows import registry
from workflows.models import Schedule, Slot
from workflows.recurrence import Recurrence

log = get_logger(__name__)

#: Slots of the timetable that wait for their turn (`overlap: queue`); more are skipped.
MAX_WAITING = 1000
_MAX_REASON = 2000


def decide(schedule: Schedule, slot: Slot) -> None:
    """Start the slot's run, skip it, or leave it waiting, as the overlap policy says.

    Needs the schedule's lock. Raises OpsCoreError when the run cannot be started.
    """
    overlap = slot.overlap or schedule.overlap
    live = [] if overlap == "allow" else _live(schedule)
    if overlap == "queue" and (live or _waits_behind(schedule, slot)):
        _wait(schedule, slot)
    elif overlap == "skip" and live:
        skip(schedule, slot, f"overlap: the run {live[0]} has not ended")
    else:
        _start(schedule, slot)
        for run_id in live if overlap == "cancel_oldest" else ():
            _cancel(schedule, run_id)


def skip(schedule: Schedule, slot: Slot, reason: str) -> None:
    """Record why a slot that was pending gets no run."""
    _settle(slot, "skipped", reason=reason)
    _log("schedule.skipped", schedule, slot, reason=reason)


def fail(schedule: Schedule, slot: Slot, reason: str) -> None:
    """Record why the run of a slot that was pending could not be started."""
    _settle(slot, "failed", reason=reason[:_MAX_REASON])
    _log("schedule.failed", schedule, slot, reason=slot.reason)


def recurrence_of(schedule: Schedule) -> Recurrence:
    """Return the timetable of a schedule that was checked when it was kept."""
    return Recurrence(schedule.cron, schedule.every_s, schedule.timezone)


def inputs_at(schedule: Schedule, at: datetime) -> dict[str, Any]:
    """Return the inputs of a run, with the slot's time where the schedule wants it."""
    own = {schedule.slot_input: at.isoformat()} if schedule.slot_input else {}
    return {**schedule.inputs, **own}


def _start(schedule: Schedule, slot: Slot) -> None:
    run = registry.execute(
        schedule.project,
        schedule.workflow,
        inputs=inputs_at(schedule, slot.at.astimezone(ZoneInfo(schedule.timezone))),
        version=schedule.version,
        priority=schedule.priority,
        fairness_key=schedule.fairness_key,
        actor=f"schedule {schedule.name}",
    )
    _settle(slot, "started", run_id=run.pk, live=True)
    _log("schedule.fired", schedule, slot, run=str(run.pk))


def _live(schedule: Schedule) -> list[UUID]:
    """Return the runs of the schedule that have not ended, oldest first."""
    started = schedule.slots.filter(live=True).values("run_id")
    runs = Run.objects.filter(pk__in=started).exclude(status__in=RUN.terminal)
    return list(runs.order_by("pk").values_list("pk", flat=True))


def _waits_behind(schedule: Schedule, slot: Slot) -> bool:
    waiting = schedule.slots.filter(outcome="pending").exclude(pk=slot.pk)
    return waiting.filter(Q(at__lt=slot.at) | Q(at=slot.at, pk__lt=slot.pk)).exists()


def _wait(schedule: Schedule, slot: Slot) -> None:
    waiting = schedule.slots.filter(outcome="pending", cause="timetable")
    if slot.cause == "timetable" and not slot.reason and waiting.count() > MAX_WAITING:
        skip(schedule, slot, f"overlap: {MAX_WAITING} slots wait already")
    elif not slot.reason:
        slot.reason = "overlap: waits for an earlier run to end"
        slot.save(update_fields=["reason"])
        _log("schedule.waits", schedule, slot)


def _cancel(schedule: Schedule, run_id: UUID) -> None:
    try:
        cancel_run(run_id, actor=f"schedule {schedule.name}")
    except ConflictError:
        return  # it has ended meanwhile


def _settle(slot: Slot, outcome: str, *, reason: str = "", **values: Any) -> None:
    for name, value in {"outcome": outcome, "reason": reason, **values}.items():
        setattr(slot, name, value)
    fields = {"outcome": outcome, "reason": reason, **values, "decided_at": Now()}
    if not Slot.objects.filter(pk=slot.pk, outcome="pending").update(**fields):
        raise ConflictError(f"The slot {slot.pk} is decided already.")


def _log(event: str, schedule: Schedule, slot: Slot, **words: str) -> None:
    facts = {"schedule": schedule.name, "slot": slot.at.isoformat(), "cause": slot.cause, **words}
    line = log.warning if event == "schedule.failed" else log.info
    after_commit(lambda: line(event, **facts))
