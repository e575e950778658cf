"""Circuit breakers and tasks: who is parked before one that is open, and who is let through."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from agents import breakers
from agents.models import Breaker
from opscore.database import Row, query
from tasks.aftermath import Aftermath, tell
from tasks.transitions import parking
from tasks.waits import wait

#: Rows that one statement takes at once.
_BATCH = 500
#: A probe that no agent took in this time makes room for another.
_PATIENCE_S = 10.0


def parked(
    task_id: UUID, project_id: int, resources: Sequence[str], *, let_through: bool = False
) -> bool:
    """Park a task whose row is locked when a resource that it names is not to be had now.

    `let_through`: a half-open breaker let it go; it does as long as it has a place. Asked last of
    all: a task may have waited long for other limits since.
    """
    if not resources:
        return False
    shut = breakers.not_closed(project_id, resources)
    # In one order: who wants several breakers locks their rows.
    if all(let_through and _has_place(row["id"]) for row in sorted(shut, key=itemgetter("id"))):
        return False
    wait(task_id, "breaker")
    return True


def _has_place(breaker_id: int) -> bool:
    params = {"id": breaker_id, "patience_s": _PATIENCE_S}
    return bool(query(parking.LOCK_BREAKER, params) and query(parking.HAS_PLACE, params))


def settle() -> bool:
    """Park and let go what the breakers say; return whether there may be more."""
    breakers.let_probes_through()
    states = set(_resources().values_list("state", flat=True))
    more = "open" in states and _park()
    if "half_open" in states:
        for breaker_id in _resources().filter(state="half_open").values_list("id", flat=True):
            _let_through(breaker_id)
    return _let_go_of_closed() or more


def _resources() -> QuerySet[Breaker]:
    return Breaker.objects.filter(kind="resource")


def _park() -> bool:
    rows = query(parking.PARK, {"limit": _BATCH})
    freed = {(row["project_id"], row["limit_key"]) for row in rows if row["limit_key"]}
    tell(Aftermath(freed=sorted(freed)))
    return len(rows) >= _BATCH


def _let_through(breaker_id: int) -> None:
    with transaction.atomic():
        if query(parking.LOCK_BREAKER, {"id": breaker_id}):
            params = {"id": breaker_id, "patience_s": _PATIENCE_S}
            _go_on(query(parking.LET_THROUGH, params))


def _let_go_of_closed() -> bool:
    rows = query(parking.RELEASE, {"limit": _BATCH})
    _go_on(rows)
    return len(rows) >= _BATCH


def _go_on(rows: Sequence[Row]) -> None:
    tell(Aftermath(due=[row["id"] for row in rows]))
