"""What people do with schedules: create, change, pause, resume, trigger, backfill, delete."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.utils import IntegrityError

from opscore.database import after_commit, database_now, query
from opscore.errors import ConflictError, InvalidError, Problem
from opscore.ids import uuid7
from opscore.logs import get_logger
from opscore.lookup import by_id_or_name
from opscore.models import Project
from workflows.models import Schedule, Slot
from workflows.schedule_checks import check_range, first_slot
from workflows.slots import decide, recurrence_of

log = get_logger(__name__)
#: Slots of one backfill.
MAX_BACKFILL = 10_000
_TIMING = ("cron", "every_s", "timezone", "paused")

# A slot that has a run, or waits for one, is left as it is.
_BACKFILL = """
INSERT INTO workflows_slot (id, schedule_id, at, cause, overlap, outcome, reason, live)
SELECT x.id, %(schedule)s, x.at, 'backfill', %(overlap)s, 'pending', '', false
  FROM jsonb_to_recordset(%(slots)s::jsonb) AS x(id uuid, at timestamptz)
    ON CONFLICT (schedule_id, at) WHERE NOT cause = 'manual'
    DO UPDATE SET cause = 'backfill', overlap = EXCLUDED.overlap, outcome = 'pending',
                  reason = '', until = NULL, decided_at = NULL
    WHERE workflows_slot.outcome IN ('skipped', 'failed')
RETURNING id
"""


@dataclass(frozen=True, slots=True)
class Backfill:
    """What a backfill did."""

    slots: int
    """Slots of the timetable in the range."""
    created: int
    """Those whose runs are going to start; the others had a run, or waited for one, before."""


def create(project: Project, **fields: Any) -> Schedule:
    """Keep a new schedule; its first slot is the first one from now on.

    Raises InvalidError with every problem, ConflictError when the name is taken.
    """
    schedule = Schedule(project=project, **fields)
    schedule.next_at = first_slot(schedule)
    _save(schedule, force_insert=True)
    said = {"schedule": schedule.name, "workflow": schedule.workflow}
    after_commit(lambda: log.info("schedule.created", **said))
    return schedule


@transaction.atomic
def change(project: Project, ref: str | UUID, **fields: Any) -> Schedule:
    """Change a schedule; another timetable counts from now on.

    `cron` alone replaces an interval, and `every_s` a cron expression. Raises InvalidError,
    NotFoundError, ConflictError.
    """
    schedule = _locked(project, ref)
    for one, other in (("cron", "every_s"), ("every_s", "cron")):
        if fields.get(one) is not None and other not in fields:
            fields[other] = None
    old = [getattr(schedule, name) for name in _TIMING]
    for name, value in fields.items():
        setattr(schedule, name, value)
    first = first_slot(schedule)
    if old != [getattr(schedule, name) for name in _TIMING]:
        schedule.next_at = first
    _save(schedule)
    said = {"schedule": schedule.name, "fields": sorted(fields)}
    after_commit(lambda: log.info("schedule.changed", **said))
    return schedule


@transaction.atomic
def pause(project: Project, ref: str | UUID) -> Schedule:
    """Stop a schedule; slots that wait go on waiting. Harmless when repeated."""
    schedule = _locked(project, ref)
    schedule.paused, schedule.next_at = True, None
    schedule.save(update_fields=["paused", "next_at"])
    log.info("schedule.paused", schedule=schedule.name)
    return schedule


@transaction.atomic
def resume(project: Project, ref: str | UUID) -> Schedule:
    """Go on from now; slots of the pause are not made good. Harmless when repeated."""
    schedule = _locked(project, ref)
    if schedule.paused:
        schedule.paused = False
        schedule.next_at = recurrence_of(schedule).after(database_now())
        schedule.save(update_fields=["paused", "next_at"])
        log.info("schedule.resumed", schedule=schedule.name)
    return schedule


@transaction.atomic
def delete(project: Project, ref: str | UUID) -> None:
    """Delete a schedule with its slots; the runs stay."""
    schedule = _locked(project, ref)
    log.info("schedule.deleted", schedule=schedule.name)
    schedule.delete()


@transaction.atomic
def trigger(project: Project, ref: str | UUID, *, overlap: str | None = None) -> Slot:
    """Fire now, beside the timetable, also while paused; the overlap policy applies.

    Returns the slot: started, skipped or pending. Raises what `registry.execute` raises.
    """
    schedule = _locked(project, ref)
    slot = Slot(schedule=schedule, at=database_now(), cause="manual", overlap=overlap)
    slot.save(force_insert=True)
    decide(schedule, slot)
    return slot


@transaction.atomic
def backfill(
    project: Project,
    ref: str | UUID,
    start: datetime,
    end: datetime,
    *,
    overlap: str | None = None,
) -> Backfill:
    """Have each slot from `start` on and before `end` run that did not start one yet.

    Harmless when repeated. The overlap policy applies, or the one given. Raises InvalidError
    for a range that is not past, has too many slots, or has some whose runs are forgotten.
    """
    schedule = _locked(project, ref)
    check_range(schedule, start, end)
    times = recurrence_of(schedule).between(start, end, MAX_BACKFILL + 1)
    if len(times) > MAX_BACKFILL:
        raise InvalidError(
            "The range is too long.",
            [Problem(f"has more than {MAX_BACKFILL} slots; take it in parts", "to")],
        )
    slots = json.dumps([{"id": str(uuid7()), "at": at.isoformat()} for at in times])
    given = {"schedule": schedule.pk, "overlap": overlap, "slots": slots}
    created = len(query(_BACKFILL, given))
    log.info("schedule.backfill", schedule=schedule.name, slots=len(times), created=created)
    return Backfill(len(times), created)


def find(project: Project, ref: str | UUID) -> Schedule:
    """Return a schedule by its id or name; raises NotFoundError with close names."""
    return by_id_or_name(Schedule.objects.filter(project=project), ref, "schedule")


def upcoming(schedule: Schedule, count: int = 5) -> list[datetime]:
    """Return the next slots of the timetable; a paused schedule lets them pass."""
    return recurrence_of(schedule).upcoming(database_now(), count)


def _locked(project: Project, ref: str | UUID) -> Schedule:
    rows = Schedule.objects.select_for_update(of=("self",)).select_related("project")
    return by_id_or_name(rows.filter(project=project), ref, "schedule")


def _save(schedule: Schedule, **how: Any) -> None:
    try:
        with transaction.atomic():
            schedule.save(**how)
    except IntegrityError:
        raise ConflictError(
            f"There is a schedule {schedule.name} already; change that one, or take another name."
        ) from None
    schedule.refresh_from_db()
