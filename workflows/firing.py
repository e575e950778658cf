"""The tick of schedules: each slot is claimed and decided in one transaction, under a lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.db.utils import InterfaceError, OperationalError

from opscore.database import query, release
from opscore.errors import InvalidError, OpsCoreError, UnavailableError
from opscore.logs import get_logger
from tasks.states import RUN
from workflows.models import Schedule, Slot
from workflows.recurrence import Turn
from workflows.slots import decide, fail, recurrence_of, skip

log = get_logger(__name__)

#: Schedules that one tick looks at.
BATCH = 500
#: One tick ends after this many seconds, so that ticks do not pile up.
BUDGET_S = 2.0

# At random: where there is more to do than one tick can, all have the same chance, and two
# ticks at once seldom meet.
_DUE = """
SELECT id FROM workflows_schedule WHERE next_at <= now() ORDER BY random() LIMIT %(limit)s
"""
_WAITING = """
SELECT s.id FROM workflows_schedule s
 WHERE NOT s.paused
   AND EXISTS (SELECT FROM workflows_slot t WHERE t.schedule_id = s.id AND t.outcome = 'pending')
 ORDER BY random() LIMIT %(limit)s
"""
# A run that was deleted has ended too.
_CLOSE = """
UPDATE workflows_slot SET live = false WHERE id = ANY(ARRAY(
  SELECT s.id FROM workflows_slot s
   WHERE s.live AND NOT EXISTS (
         SELECT FROM tasks_run r WHERE r.id = s.run_id AND r.status <> ALL(%(ended)s::text[]))
   LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
"""


def tick() -> None:
    """Start what is due and what waits for its turn. Any number of these at once are harmless."""
    deadline = time.monotonic() + BUDGET_S
    steps: Sequence[Callable[[float], None]] = (_close, _fire_due, _start_waiting)
    for step in steps:
        try:
            step(deadline)
        except Exception:
            log.exception("schedules.step_failed", step=step.__name__)
            release()


def _close(_: float) -> None:
    query(_CLOSE, {"ended": list(RUN.terminal), "limit": BATCH})


def _fire_due(deadline: float) -> None:
    _in_rounds([row["id"] for row in query(_DUE, {"limit": BATCH})], fire, deadline)


def _start_waiting(deadline: float) -> None:
    _in_rounds([row["id"] for row in query(_WAITING, {"limit": BATCH})], start_waiting, deadline)


def _in_rounds(ids: list[UUID], turn: Callable[[UUID], bool], deadline: float) -> None:
    """Give each schedule one turn a round: a long backlog of one must not keep back the others."""
    while ids:
        ids = [pk for pk in ids if time.monotonic() < deadline and _safely(turn, pk)]


def _safely(turn: Callable[[UUID], bool], pk: UUID) -> bool:
    try:
        return turn(pk)
    except Exception:
        # What this turn began is rolled back; the next tick tries again.
        log.exception("schedule.turn_failed", schedule=str(pk))
        release()
        return False


def fire(schedule_id: UUID) -> bool:
    """Claim the slot that is due and decide about it; return whether the next is due as well.

    Does nothing when the slot is another's by now, or the schedule is locked.
    """
    with transaction.atomic():
        schedule = _locked(schedule_id, Q(next_at__lte=Now()))
        if schedule is None or schedule.next_at is None:
            return False
        now: datetime = schedule.now  # type: ignore[attr-defined]
        turn = recurrence_of(schedule).turn(
            schedule.next_at, now, schedule.catch_up, schedule.catch_up_window_s
        )
        if not _move(schedule, turn):
            return False
        if turn.missed:
            _give_up(schedule, *turn.missed)
        if turn.fire:
            slot, created = _timetable(schedule).get_or_create(
                schedule=schedule, at=turn.fire, defaults={"cause": "timetable"}
            )
            # A backfill may have had it before its time came here.
            if created:
                _decide_and_record(schedule, slot)
    return turn.next_at is not None and turn.next_at <= now


def start_waiting(schedule_id: UUID) -> bool:
    """Decide about the oldest slot that waits; return whether the next one may be looked at."""
    with transaction.atomic():
        schedule = _locked(schedule_id, Q(paused=False))
        if schedule is None:
            return False
        slot = schedule.slots.filter(outcome="pending").order_by("at", "id").first()
        if slot is None:
            return False
        _decide_and_record(schedule, slot)
    return slot.outcome != "pending"


def _locked(schedule_id: UUID, still: Q) -> Schedule | None:
    rows = Schedule.objects.select_for_update(skip_locked=True, of=("self",))
    found = rows.select_related("project").filter(still, pk=schedule_id)
    return found.annotate(now=Now()).first()


def _move(schedule: Schedule, turn: Turn) -> bool:
    """Set `next_at` forward unless somebody did; the claim of the slots in between."""
    last = turn.fire or (turn.missed and turn.missed[1])
    same = Schedule.objects.filter(pk=schedule.pk, next_at=schedule.next_at)
    return same.update(next_at=turn.next_at, last_at=last or F("last_at")) == 1


def _timetable(schedule: Schedule) -> Any:
    return schedule.slots.exclude(cause="manual")


def _give_up(schedule: Schedule, first: datetime, last: datetime) -> None:
    """Keep one row for slots that were missed, however many they are."""
    slot, created = _timetable(schedule).get_or_create(
        schedule=schedule, at=first, defaults={"cause": "timetable", "until": last}
    )
    if created:
        skip(schedule, slot, f"missed: nothing ticked in time, catch_up is {schedule.catch_up}")


def _decide_and_record(schedule: Schedule, slot: Slot) -> None:
    """Decide; what makes a start impossible is recorded in the slot and stops nobody else."""
    try:
        with transaction.atomic():
            decide(schedule, slot)
    except (OperationalError, InterfaceError, UnavailableError):
        raise  # the database is away, or there was a deadlock: the slot is still due
    except OpsCoreError as error:
        fail(schedule, slot, _told(error))
    except Exception:
        log.exception("schedule.start_failed", schedule=schedule.name, slot=str(slot.pk))
        fail(schedule, slot, "internal: the run could not be started; see the log")


def _told(error: OpsCoreError) -> str:
    problems = error.problems if isinstance(error, InvalidError) else ()
    return " ".join([str(error), *map(str, problems)])
