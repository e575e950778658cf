"""Old runs: archived where that is wanted, then deleted, in bounded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from operator import itemgetter
from pathlib import Path
from uuid import UUID

from django.db import transaction

from opscore.config import load_config
from opscore.database import query
from opscore.logs import get_logger
from tasks import archive
from tasks.models import Run, Task

log = get_logger(__name__)

#: Tasks that one batch deletes: up to 0.5 s of locks on rows that nobody uses.
BATCH = 1000
#: Log lines and events that it deletes, for each of these tasks.
_LINES = 10


@dataclass(frozen=True)
class Rule:
    """How long runs of some statuses are kept after their end."""

    statuses: tuple[str, ...]
    days: float
    """0: for ever."""


def rules() -> tuple[Rule, ...]:
    """Return the operator's policy."""
    config = load_config()
    return (
        Rule(("completed",), config.retention_days),
        Rule(("failed", "cancelled"), config.retention_failed_days),
    )


def delete_old_runs() -> bool:
    """Archive and delete one batch of old runs by policy; return whether there may be more.

    Any number of these at once are harmless: each takes runs that no other one holds. Raises
    OSError when an archive cannot be written; then nothing is deleted.
    """
    folder = load_config().archive_dir
    found = [retire(rule, Path(folder) if folder else None) for rule in rules()]
    return any(found)


def retire(rule: Rule, folder: Path | None, batch: int = BATCH) -> bool:
    """Do one batch of one rule, in one transaction; return whether there may be more.

    A run goes with the runs below it, once all of them have ended. A run whose rows are more
    than a batch is archived whole, then deleted in several batches, its own row last.
    """
    if not rule.days:
        return False
    with transaction.atomic():
        families = list(_families(rule, batch))
        run_ids = [run_id for family in families for run_id in family]
        file = _archived(folder, run_ids) if folder and run_ids else ""
        if run_ids and not _deleted(run_ids, batch):
            _remember_archive(run_ids, file)
            return True
    if run_ids:
        log.info("runs.deleted", runs=len(run_ids), archive=file)
    return bool(run_ids)


def _families(rule: Rule, batch: int) -> Iterator[list[UUID]]:
    """Lock old runs that no other run stands above, and yield each behind those below it."""
    rows = query(_OLD, {"statuses": list(rule.statuses), "days": rule.days, "limit": batch})
    sizes = accumulate(row["tasks"] for row in rows)
    tops = [row["id"] for row, size in zip(rows, sizes, strict=True) if size <= batch]
    tops = tops or [row["id"] for row in rows[:1]]
    for _, family in groupby(query(_BELOW, {"ids": tops}), key=itemgetter("top")):
        runs = list(family)
        if all(run["completed_at"] for run in runs):
            yield [run["id"] for run in runs]


def _archived(folder: Path, run_ids: Sequence[UUID]) -> str:
    """Archive what is not archived yet; return the name of the file."""
    known = {row["run_id"] for row in query(_ARCHIVED, {"ids": run_ids})}
    wanted = [run_id for run_id in run_ids if run_id not in known]
    return archive.write(folder, wanted).name if wanted else ""


def _remember_archive(run_ids: Sequence[UUID], file: str) -> None:
    """Keep the next batch from archiving what this one has half deleted."""
    if file:
        query(_REMEMBER, {"ids": run_ids, "file": file})


def _deleted(run_ids: list[UUID], batch: int) -> bool:
    """Delete the runs with all that belongs to them; False: there was more than one batch."""
    lines = {"ids": run_ids, "limit": batch * _LINES}
    for statement in (_LOGS, _EVENTS):
        if len(query(statement, lines)) == lines["limit"]:
            return False
    task_ids = [row["id"] for row in query(_TASKS, {"ids": run_ids, "limit": batch})]
    # The ORM knows every table that hangs on a task or a run.
    Task.objects.filter(id__in=task_ids).delete()
    if len(task_ids) == batch:
        return False
    query(_LAST_EVENTS, {"ids": run_ids})
    Run.objects.filter(id__in=run_ids).delete()
    return True


# A run that a task of another run started goes with that run, and not before it.
# SKIP LOCKED: any number of beats at once. The lock also keeps off whoever holds the run FOR
# KEY SHARE, to go on using its results.
_OLD = """
SELECT r.id, r.task_count + 1 AS tasks FROM tasks_run r  -- the end node is not counted
 WHERE status = ANY(%(statuses)s)
   AND r.completed_at < now() - %(days)s * interval '1 day'
   AND NOT EXISTS (SELECT FROM tasks_task t WHERE t.id = r.parent_task_id)
 ORDER BY r.completed_at LIMIT %(limit)s
   FOR UPDATE OF r SKIP LOCKED
"""

# The deepest first: those above are what the deeper ones are found by.
_BELOW = """
WITH RECURSIVE family(top, id, completed_at, depth) AS (
  SELECT id, id, completed_at, 0 FROM tasks_run WHERE id = ANY(%(ids)s)
   UNION ALL
  SELECT f.top, c.id, c.completed_at, f.depth + 1
    FROM family f
    JOIN tasks_task t ON t.run_id = f.id
    JOIN tasks_run c ON c.parent_task_id = t.id)
SELECT top, id, completed_at FROM family ORDER BY top, depth DESC
"""

_ARCHIVED = """
SELECT run_id FROM opscore_event WHERE run_id = ANY(%(ids)s) AND kind = 'run.archived'
"""

_REMEMBER = """
INSERT INTO opscore_event (project_id, kind, run_id, actor, data)
SELECT project_id, 'run.archived', id, '', jsonb_build_object('file', %(file)s::text)
  FROM tasks_run r WHERE id = ANY(%(ids)s)
   AND NOT EXISTS (SELECT FROM opscore_event e
                    WHERE e.run_id = r.id AND e.kind = 'run.archived')
"""

_LOGS = """
DELETE FROM tasks_tasklog WHERE id IN (
  SELECT l.id FROM tasks_tasklog l JOIN tasks_task t ON t.id = l.task_id
   WHERE t.run_id = ANY(%(ids)s) LIMIT %(limit)s)
RETURNING id
"""

_EVENTS = """
DELETE FROM opscore_event WHERE id IN (
  SELECT id FROM opscore_event
   WHERE run_id = ANY(%(ids)s) AND kind <> 'run.archived' LIMIT %(limit)s)
RETURNING id
"""

_TASKS = """
SELECT t.id FROM unnest(%(ids)s::uuid[]) WITH ORDINALITY AS r(id, place)
  JOIN tasks_task t ON t.run_id = r.id
 ORDER BY r.place LIMIT %(limit)s
"""

_LAST_EVENTS = "DELETE FROM opscore_event WHERE run_id = ANY(%(ids)s)"
