"""Indexes of tasks: by which queued ones go on (see `tasks.transitions.turns`, `addressing`,
`parking`), and by which the items of a for_each are found.
"""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import models
from django.db.models import F, Q

#: Queued tasks with a message that may lie in the broker, and those that have none by intention.
_HINTED = Q(status="queued", hinted_at__gt=datetime(1970, 1, 1, tzinfo=UTC))
_HELD_BACK = Q(status="queued", hinted_at__isnull=True)

TURNS = (
    # How much of a queue is hinted: counted up to the window, never further.
    models.Index(fields=["queue", "-priority", "ready_at"], name="task_hinted", condition=_HINTED),
    # Who goes first of what is held back: whose turn it is, and which of theirs.
    models.Index(
        fields=["queue", "-priority", "tenant_turn", "ready_at"],
        name="task_held_back",
        condition=_HELD_BACK,
    ),
    models.Index(
        fields=["queue", "priority", "tenant", "run_turn", "ready_at"],
        name="task_of_tenant",
        condition=_HELD_BACK,
    ),
    # The last turn that a tenant has, and a run.
    models.Index(
        fields=["queue", "priority", "tenant", "tenant_turn"],
        name="task_tenant_turn",
        condition=_HELD_BACK,
    ),
    models.Index(
        fields=["run", "queue", "priority", "run_turn"],
        name="task_run_turn",
        condition=_HELD_BACK,
    ),
    models.Index(
        fields=["for_agent"],
        name="task_addressed",
        condition=Q(status="queued", for_agent__isnull=False),
    ),
    # What a breaker that opens parks, and what a half-open one has let through.
    models.Index(
        fields=["project"],
        name="task_resource",
        condition=Q(flow__has_key="resources") & Q(status__in=["queued", "running"]),
    ),
    # What is parked, by what it waits for.
    models.Index(
        F("project"),
        F("flow__resources"),
        F("run"),
        F("number"),
        name="task_parked",
        condition=Q(status="waiting", waits_for="breaker", wake_at__isnull=True),
    ),
)

ITEMS = (
    models.Index(
        fields=["parent_id"],
        name="task_items",
        condition=Q(parent_id__isnull=False),
    ),
    models.Index(
        fields=["parent_id", "status"],
        name="task_items_open",
        condition=Q(parent_id__isnull=False)
        & ~Q(status__in=["completed", "failed", "cancelled", "skipped"]),
    ),
    models.Index(
        fields=["parent_id", "item_index"],
        name="task_items_bad",
        condition=Q(parent_id__isnull=False) & Q(status__in=["failed", "cancelled"]),
    ),
)
