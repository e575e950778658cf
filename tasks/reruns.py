"""Running again: always a new run, linked to the old one, that keeps what need not be redone."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction

from opscore.database import Row, after_commit, query
from opscore.errors import ConflictError, InvalidError, NotFoundError, Problem
from opscore.ids import uuid7
from opscore.logs import get_logger
from tasks import control
from tasks.aftermath import Aftermath, tell
from tasks.dispatch import Ready, advance
from tasks.models import Run, Task
from tasks.states import RUN

log = get_logger(__name__)
#: Runs that one call of `redrive` starts again at most.
MAX_REDRIVEN = 1_000

_ROWS = """
SELECT id, number, key, status, successors, in_degree, is_sink, plain, phase, names::json
  FROM tasks_task
 WHERE run_id = %(run)s AND parent_id IS NULL AND phase <> 'undo' ORDER BY number
"""

_COPY_RUN = """
INSERT INTO tasks_run (id, project_id, workflow, version, workflow_version_id, status, inputs,
                       priority, task_count, open_sinks, phase, epilogue, parent_task_id, depth,
                       rerun_of, concurrency, limit_key, fairness_key)
SELECT %(new)s, project_id, workflow, version, workflow_version_id,
       CASE WHEN limit_key = '' THEN 'running' ELSE 'created' END,
       COALESCE(%(inputs)s::jsonb, inputs), priority, task_count, %(sinks)s, 'main',
       -- Not the old run's: one that was cancelled by force has lost it.
       EXISTS (SELECT FROM tasks_task WHERE run_id = %(old)s
                AND (phase = 'finally' OR flow ? 'undo')),
       NULL, 0, id, concurrency, limit_key, fairness_key
  FROM tasks_run WHERE id = %(old)s
"""

# What is redone starts as it was submitted: without what caught its failure.
_COPY_TASKS = """
INSERT INTO tasks_task (
       id, project_id, run_id, number, key, uses, capability, requires, queue, priority, status,
       attempt, losses, retry, tried_before, timeout_s, heartbeat_s, queue_timeout_s, fence,
       "join", pending, needs_failed, needs_skipped, in_degree, successors, is_sink, plain,
       direct, phase, flow, names, waits_for, limit_key, next_item, item_count, reads, uncarried,
       inputs, outputs_template, result, result_ref, outputs, error, ready_at, started_at,
       completed_at, hinted_at, hints)
SELECT x.id, t.project_id, %(new)s, t.number, t.key,
       CASE WHEN x.keep THEN t.uses ELSE COALESCE(c.uses, t.uses) END,
       CASE WHEN x.keep THEN t.capability ELSE COALESCE(c.capability, t.capability) END,
       CASE WHEN x.keep THEN t.requires ELSE COALESCE(c.requires, t.requires) END,
       CASE WHEN x.keep THEN t.queue ELSE COALESCE(c.queue, t.queue) END,
       t.priority, x.status, 1, 0,
       CASE WHEN x.keep THEN t.retry ELSE COALESCE(c.retry, t.retry) END,
       0, t.timeout_s, t.heartbeat_s, t.queue_timeout_s, 0, t."join", x.pending, 0, x.skipped,
       t.in_degree, t.successors, t.is_sink, t.plain,
       CASE WHEN x.keep THEN t.direct ELSE COALESCE(c.direct, t.direct) END, t.phase,
       CASE WHEN x.keep THEN t.flow ELSE COALESCE(c.flow, t.flow) END,
       CASE WHEN x.keep THEN t.names ELSE '{}' END, '', '', 0,
       CASE WHEN x.keep THEN t.item_count END, t.reads, true,
       CASE WHEN x.keep THEN t.inputs ELSE COALESCE(c.inputs, t.inputs) END, t.outputs_template,
       CASE WHEN x.keep THEN t.result END, CASE WHEN x.keep THEN t.result_ref END,
       CASE WHEN x.keep THEN t.outputs END, CASE WHEN x.keep THEN t.error END,
       CASE WHEN x.keep THEN t.ready_at WHEN x.status = 'queued' THEN clock_timestamp() END,
       CASE WHEN x.keep THEN t.started_at END, CASE WHEN x.keep THEN t.completed_at END,
       -- A run that may have to wait for its place is hinted when it has got it.
       CASE WHEN x.status <> 'queued' THEN NULL
            WHEN (SELECT status FROM tasks_run WHERE id = %(new)s) = 'created' THEN to_timestamp(0)
            ELSE now() END, 0
  FROM jsonb_to_recordset(%(rows)s::jsonb) AS x(
       id uuid, old uuid, keep bool, status text, pending int, skipped int)
  JOIN tasks_task t ON t.id = x.old
  LEFT JOIN LATERAL jsonb_to_record(t.names->'caught') AS c(
       uses text, capability text, requires varchar[], queue text, inputs jsonb, retry jsonb,
       flow jsonb, direct bool) ON true
RETURNING id, run_id, project_id, number, attempt, queue, capability, priority, uncarried,
          in_degree, successors, flow ?| '{prefers,sticky}' AS wishes, status, pending
"""


def rerun(
    run_id: UUID,
    *,
    keys: Collection[str] | None = None,
    inputs: Mapping[str, Any] | None = None,
    actor: str = "",
) -> Run:
    """Start an ended run again as a new run, from the tasks `keys` on; None: from what failed.

    Everything below these tasks is done again, and whatever the old run has taken back by `undo`;
    all else keeps its result. `inputs` replace
    those of the run (for what is done again). Raises NotFoundError, ConflictError when the run
    has not ended or nothing in it failed, InvalidError for unknown keys.
    """
    with transaction.atomic():
        # The rows and payloads that are kept must not be deleted by retention meanwhile.
        query("SELECT FROM tasks_run WHERE id = %(id)s FOR KEY SHARE", {"id": run_id})
        return _rerun(run_id, keys, inputs, actor)


def _rerun(
    run_id: UUID,
    keys: Collection[str] | None,
    inputs: Mapping[str, Any] | None,
    actor: str,
) -> Run:
    old = Run.objects.filter(id=run_id).first()
    if old is None:
        raise NotFoundError(f"There is no run {run_id}.")
    if old.status not in RUN.terminal:
        raise ConflictError(f"The run is {old.status}; only one that has ended can be re-run.")
    rows = query(_ROWS, {"run": run_id})
    heads = _heads(rows, keys)
    if not heads:
        raise ConflictError("Nothing in this run failed; name the tasks to run again.")
    unfinished = {row["number"] for row in rows if row["status"] not in ("completed", "skipped")}
    again = below(rows, heads | unfinished | _undone(run_id, rows))
    return _copy(old, rows, again, inputs, actor)


def redrive(runs: Sequence[UUID], actor: str = "") -> list[Run]:
    """Start many failed runs again, each once and from what failed; others are left out."""
    started = []
    for run_id in runs[:MAX_REDRIVEN]:
        with transaction.atomic():
            # Somebody else may redrive the same runs now.
            query("SELECT FROM tasks_run WHERE id = %(id)s FOR NO KEY UPDATE", {"id": run_id})
            if not Run.objects.filter(rerun_of=run_id).exists():
                started += _rerun_if_failed(run_id, actor)
    return started


def _rerun_if_failed(run_id: UUID, actor: str) -> list[Run]:
    try:
        return [rerun(run_id, actor=actor)]
    except ConflictError:
        return []  # nothing failed in it, or it lives


def below(rows: Sequence[Row], heads: Collection[int]) -> frozenset[int]:
    """Return the numbers of these tasks and of all that wait for them, however far below."""
    found = set(heads)
    for row in rows:
        # In the order of the numbers, every task stands before its successors.
        if row["number"] in found:
            found.update(row["successors"])
    return frozenset(found)


def _undone(run_id: UUID, rows: Sequence[Row]) -> set[int]:
    """Return what the old run has taken back: its results stand for nothing any more."""
    taken_back = Task.objects.filter(run_id=run_id, phase="undo").exclude(
        status__in=["pending", "skipped"]
    )
    # An item of a list is done again with its whole list.
    keys = {key.partition("[")[0] for key in taken_back.values_list("names__undo_of", flat=True)}
    return {row["number"] for row in rows if row["key"] in keys}


def _heads(rows: Sequence[Row], keys: Collection[str] | None) -> set[int]:
    if keys is None:
        return {row["number"] for row in rows if row["status"] in ("failed", "cancelled")}
    number = {row["key"]: row["number"] for row in rows}
    unknown = sorted(set(keys) - set(number))
    if unknown:
        problems = [Problem(f"the run has no task `{key}`", "from") for key in unknown]
        raise InvalidError("The run cannot be started from there.", problems)
    return {number[key] for key in keys}


def _copy(
    old: Run,
    rows: Sequence[Row],
    again: frozenset[int],
    inputs: Mapping[str, Any] | None,
    actor: str,
) -> Run:
    # What ends the run is done again in any case: outputs, finally.
    redone = again | {row["number"] for row in rows if row["phase"] == "finally"}
    needs: dict[int, list[Row]] = {}
    for row in rows:
        for number in row["successors"]:
            needs.setdefault(number, []).append(row)
    told = [_told(row, needs.get(row["number"], []), redone) for row in rows]
    sinks = [row for row in rows if row["is_sink"] and row["phase"] == "main"]
    new_id = uuid7()
    with transaction.atomic():
        query(
            _COPY_RUN,
            {
                "new": new_id,
                "old": old.id,
                "inputs": None if inputs is None else json.dumps(inputs),
                "sinks": sum(row["number"] in redone for row in sinks),
            },
        )
        made = query(_COPY_TASKS, {"new": new_id, "rows": json.dumps(told, default=str)})
        run = Run.objects.get(id=new_id)
        _begin(run, made)
    log.info("run.rerun", run=str(new_id), of=str(old.id), tasks=len(redone), actor=actor)
    return run


def _told(row: Row, needs: Sequence[Row], redone: frozenset[int]) -> dict[str, Any]:
    pending = sum(other["number"] in redone for other in needs)
    skipped = sum(other["status"] == "skipped" and other["number"] not in redone for other in needs)
    keep = row["number"] not in redone
    waits = row["phase"] == "finally" and not row["in_degree"]
    ready = row["plain"] and not pending and not skipped and not waits
    return {
        "id": uuid7(),
        "old": row["id"],
        "keep": keep,
        "status": row["status"] if keep else ("queued" if ready else "pending"),
        "pending": 0 if keep else pending + waits,
        "skipped": skipped,
    }


def _begin(run: Run, made: Sequence[Row]) -> None:
    if run.limit_key:
        after_commit(lambda: control.admit_runs(run.project_id, run.limit_key))
        return
    advance([Ready.of(row) for row in made if row["status"] == "queued"])
    undecided = [row["id"] for row in made if row["status"] == "pending" and not row["pending"]]
    tell(Aftermath(undecided=undecided))
