"""What a run that is `created` waits for: a place under its concurrency key."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q

from tasks.flow import Concurrency
from tasks.models import Run

#: Of more runs than these the oldest are named.
MAX_HOLDERS = 10


@dataclass(frozen=True, slots=True)
class Place:
    """A place under a concurrency key, not free yet."""

    key: str
    limit: int
    """How many runs may have the key at once."""
    held_by: tuple[UUID, ...]
    """Runs that have it now, oldest first; at most ten."""
    ahead: int
    """How many other runs wait for it and come first."""


def wanted_place(run: Run) -> Place | None:
    """Return the place that a run waits for; None unless it is `created`."""
    if run.status != "created":
        return None
    same = Run.objects.filter(project_id=run.project_id, limit_key=run.limit_key)
    # Who has a place and who is next: as ADMIT_RUN of `tasks.transitions.runs` counts and orders.
    holders = same.filter(status__in=("running", "paused", "cancelling")).order_by("id")
    sooner = Q(priority__gt=run.priority) | Q(priority=run.priority, id__lt=run.pk)
    return Place(
        run.limit_key,
        Concurrency.from_dict(run.concurrency or {}).limit,
        tuple(holders.values_list("id", flat=True)[:MAX_HOLDERS]),
        same.filter(sooner, status="created").count(),
    )
