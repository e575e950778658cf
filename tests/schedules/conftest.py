"""Schedules whose time has come: the rows' due times are moved, never a clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.conftest import api, make_api

__all__ = ["api", "make_api"]

if TYPE_CHECKING:
    from opscore.models import Project
    from workflows.models import Schedule

DEFINITION: dict[str, Any] = {
    "name": "report",
    "inputs": {"type": "object", "properties": {"day": {"type": "string"}}},
    "tasks": {"write": {"capability": "nobody", "with": {"day": "${{ inputs.day }}"}}},
}


@pytest.fixture
def workflow(project: Project) -> str:
    """The name of a workflow whose runs do not end by themselves: nobody takes its task."""
    from workflows import registry
    from workflows.definition import from_data

    registry.upload(project, from_data(DEFINITION))
    return "report"


@pytest.fixture
def schedule(project: Project, workflow: str) -> Callable[..., Schedule]:
    """Make schedules: `schedule("nightly", cron="0 3 * * *")`; every hour unless said."""
    from workflows import schedules

    def make(name: str = "often", **fields: Any) -> Schedule:
        if not {"cron", "every_s"} & fields.keys():
            fields["every_s"] = 3600
        fields = {"workflow": workflow, "inputs": {"day": "x"}, **fields}
        return schedules.create(project, name=name, **fields)

    return make


def hour_at_rest() -> int:
    """Return an interval of an hour or more whose last slot is minutes ago, so that it is missed."""
    from opscore.database import database_now

    now = int(database_now().timestamp())
    return next(every_s for every_s in range(3600, 7200) if now % every_s > 300)


def make_due(schedule: Schedule, *, since_s: float) -> list[datetime]:
    """Move the schedule back as if nothing had ticked for so long; return its due slots."""
    from opscore.database import database_now
    from workflows.slots import recurrence_of

    now = database_now()
    slots = recurrence_of(schedule).between(now - timedelta(seconds=since_s), now, 100_000)
    assert slots
    schedule.next_at = slots[0]
    schedule.save(update_fields=["next_at"])
    return slots


def started(schedule: Schedule) -> list[datetime]:
    """Return the slots that have a run, in order."""
    return list(
        schedule.slots.filter(outcome="started").order_by("at").values_list("at", flat=True)
    )
