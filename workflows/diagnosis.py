"""All that a support person would ask for: the checks of all floors, in the order of the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from agents import diagnosis as of_agents
from opscore import diagnosis as of_ground
from opscore.database import database_now
from opscore.diagnosis import SHOWN, Check, Finding, listed
from opscore.models import Project
from tasks import diagnosis as of_tasks
from workflows.models import Schedule, Slot

_LATE = timedelta(minutes=1)
_LATELY = timedelta(days=1)


def schedules(project: Project) -> Iterator[Finding]:
    """Say which schedules are late, failed lately or are paused."""
    mine, now = Schedule.objects.filter(project=project), database_now()
    late = list(mine.filter(next_at__lt=now - _LATE).values_list("name", flat=True))
    if late:
        advice = "start beat or a supervisor: either fires them"
        yield Finding("schedules", "fail", f"due and not fired: {listed(late)}", advice)
    failed = Slot.objects.filter(
        schedule__project=project, outcome="failed", decided_at__gt=now - _LATELY
    )
    for slot in failed.select_related("schedule").order_by("-decided_at")[:SHOWN]:
        message = f"{slot.schedule.name} started no run at {slot.at:%F %T} UTC: {slot.reason[:200]}"
        yield Finding("schedules", "warn", message, "mend what it says; backfill what is missing")
    paused = list(mine.filter(paused=True).values_list("name", flat=True))
    if paused:
        advice = "opscore schedule resume NAME"
        yield Finding("schedules", "warn", f"paused by hand: {listed(paused)}", advice)
    if not late:
        yield Finding("schedules", "ok", f"{mine.filter(paused=False).count()} fire in time")


CHECKS: Sequence[Check] = (
    *of_ground.CHECKS,
    *of_agents.CHECKS,
    *of_tasks.CHECKS,
    schedules,
    *of_ground.LATER,
)
