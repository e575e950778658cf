"""Virtual time for rehearsals: whatever the engine wrote is moved into the past, clocks stay."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.apps import apps
from django.contrib.postgres.fields import ArrayField
from django.db import models, transaction

from agents.models import Breaker
from opscore.database import query
from opscore.models import Event

# What happens by itself one day: waits, retries, turns under a rate limit, expiries; deadlines of
# attempts and of waits; the longest time in a queue; the pause of a circuit breaker.
_NEXT = """
SELECT extract(epoch FROM min(due) - clock_timestamp())::float AS wait_s
  FROM (SELECT t.wake_at AS due
          FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id AND r.status <> 'paused'
         WHERE t.status IN ('waiting', 'retrying')
         UNION ALL
        SELECT lease_until FROM tasks_task WHERE status IN ('waiting', 'running')
         UNION ALL
        SELECT ready_at + make_interval(secs => queue_timeout_s) FROM tasks_task
         WHERE status = 'queued'
         UNION ALL
        SELECT until FROM agents_breaker WHERE state = 'open') d
 WHERE due >= %(after)s
"""
_ELAPSED = """
SELECT extract(epoch FROM clock_timestamp() - min(created_at))::float AS elapsed_s FROM tasks_run
"""

_BY = "make_interval(secs => %(s)s)"


def until_next(after: datetime) -> float | None:
    """Return the seconds until the next thing that is due at `after` or later; None: nothing is.

    What was due before `after` was looked at and did not go on, so nobody need wait for it.
    """
    wait_s: float | None = query(_NEXT, {"after": after})[0]["wait_s"]
    return wait_s


def jump(seconds: float) -> None:
    """Let so many seconds pass at once: every time that was ever written lies that much earlier."""
    if seconds > 0:
        with transaction.atomic():
            for statement in _shifts():
                query(statement, {"s": seconds})


def elapsed_s() -> float:
    """Return the seconds since the first run was started, jumps included; 0 without a run."""
    return query(_ELAPSED, {})[0]["elapsed_s"] or 0.0


def _shifts() -> Iterator[str]:
    written: list[type[models.Model]] = [*apps.get_app_config("tasks").get_models(), Event, Breaker]
    for model in written:
        table = model._meta  # noqa: SLF001 - documented by Django under this name
        if moves := [move for field in table.local_fields if (move := _move(field))]:
            yield f"UPDATE {table.db_table} SET {', '.join(moves)}"  # noqa: S608 - our own names


def _move(field: models.Field[Any, Any]) -> str:
    """Return how a column of times is moved; '' for any other column."""
    column = f'"{field.column}"'
    if isinstance(field, ArrayField) and isinstance(field.base_field, models.DateTimeField):
        items = f"unnest({column}) WITH ORDINALITY AS x(at, n)"
        return f"{column} = ARRAY(SELECT at - {_BY} FROM {items} ORDER BY n)"  # noqa: S608 - our own names
    return f"{column} = {column} - {_BY}" if isinstance(field, models.DateTimeField) else ""
