"""Whether a schedule makes sense: every problem at once, each with its path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from opscore.database import database_now
from opscore.errors import InvalidError, NotFoundError, OpsCoreError, Problem
from workflows import registry, values
from workflows.definition import from_data
from workflows.models import Schedule
from workflows.recurrence import EPOCH, Recurrence, recurrence
from workflows.slots import inputs_at


def first_slot(schedule: Schedule) -> datetime | None:
    """Check a schedule; return its next slot, None while it is paused."""
    now = database_now()
    problems = list(_name_problems(schedule.name))
    first = None
    try:
        first = _timetable(schedule).after(now)
        if first is None:
            problems.append(Problem(f"`{schedule.cron}` never comes", "cron"))
    except InvalidError as error:
        problems += error.problems
    problems += _workflow_problems(schedule, first or now)
    if problems:
        raise InvalidError("The schedule is not valid.", problems)
    return None if schedule.paused else first


def check_range(schedule: Schedule, start: datetime, end: datetime) -> None:
    """Check the range of a backfill; raises InvalidError."""
    problems = []
    if schedule.forgotten_to and start <= schedule.forgotten_to:
        message = f"must be later than {schedule.forgotten_to:%Y-%m-%dT%H:%M:%SZ}: slots up to then"
        problems.append(
            Problem(f"{message} had runs and are deleted, they would run again", "from")
        )
    if start < EPOCH:
        problems.append(Problem("must not lie before 1970", "from"))
    if start >= end:
        problems.append(Problem("must be later than `from`", "to"))
    if end > (now := database_now()):
        message = f"must not lie in the future (it is {now:%Y-%m-%dT%H:%M:%SZ}): what is to come"
        problems.append(Problem(f"{message} is fired by the timetable", "to"))
    if problems:
        raise InvalidError("The range cannot be backfilled.", problems)


def _timetable(schedule: Schedule) -> Recurrence:
    return recurrence(schedule.cron, schedule.every_s, schedule.timezone)


def _name_problems(name: str) -> Iterator[Problem]:
    try:
        values.name(name)
    except values.MisfitError as error:
        yield Problem(str(error), "name")


def _workflow_problems(schedule: Schedule, at: datetime) -> Iterator[Problem]:
    """Say what would keep a run of the workflow, as it is today, from starting."""
    try:
        workflow = registry.find(schedule.project, schedule.workflow)
    except NotFoundError as error:
        yield Problem(str(error), "workflow")
        return
    schedule.workflow = workflow.name
    versions = workflow.versions.order_by("-number")
    version = (versions.filter(version=schedule.version) if schedule.version else versions).first()
    if version is None:
        newest = ", ".join(versions.values_list("version", flat=True)[:5])
        message = f"{workflow.name} has no version {schedule.version}; the newest are: {newest}"
        yield Problem(message, "version")
        return
    yield from _input_problems(schedule, version.definition, at)


def _input_problems(
    schedule: Schedule, definition: Mapping[str, Any], at: datetime
) -> Iterator[Problem]:
    try:
        from_data(definition).check_inputs(inputs_at(schedule, at))
    except InvalidError as error:
        yield from error.problems
    except OpsCoreError as error:
        yield Problem(str(error), "inputs")
