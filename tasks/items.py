"""for_each: one task a list item, made when there is room, gathered in order.

The for_each task waits; its items are tasks of the same run that name it as parent. It carries
the condition and the list; everything else (retry, repeat, catch, limits) is each item's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from django.db import transaction

from opscore.config import load_config
from opscore.database import Row, query
from opscore.ids import uuid7
from tasks import payloads
from tasks.aftermath import Aftermath, tell
from tasks.dispatch import Ready, advance
from tasks.endings import end_task
from tasks.expressions import ExpressionError, render
from tasks.flow import Flow
from tasks.graph import Node, references_in
from tasks.held import Claimed
from tasks.reports import UnusableError, complete_many, prepare_waiting
from tasks.results import store
from tasks.transitions import runs
from tasks.waits import wait

MAX_ITEMS = 10_000
#: Rows made by one statement.
_BATCH = 1_000

_RESULTS = """
SELECT item_index, status, result::json, result_ref FROM tasks_task
 WHERE parent_id = %(id)s ORDER BY item_index
"""
_SIZE = """
SELECT COALESCE(sum(octet_length(result::text)), 0) + COALESCE(sum(p.size), 0) AS bytes
  FROM tasks_task t LEFT JOIN tasks_payload p ON p.id = t.result_ref
 WHERE t.parent_id = %(id)s
"""
_FAILED = """
SELECT item_index, error::json FROM tasks_task
 WHERE parent_id = %(id)s AND status IN ('failed', 'cancelled') ORDER BY item_index LIMIT 100
"""
_OPEN = """
SELECT count(*) AS open FROM tasks_task
 WHERE parent_id = %(id)s AND status NOT IN ('completed', 'failed', 'cancelled', 'skipped')
"""
# Whoever cancels the run flags it first, and waits for this lock: it will see the new items.
_RUN_GOES_ON = """
SELECT r.id FROM tasks_run r JOIN tasks_task t ON t.run_id = r.id
 WHERE t.id = %(id)s
   AND (r.status IN ('running', 'paused') OR r.status = 'cancelling' AND t.phase <> 'main')
   FOR SHARE OF r
"""
_SLICE = """
SELECT COALESCE(json_agg(x.item ORDER BY x.place), '[]') AS found
  FROM tasks_task t, jsonb_array_elements(t.items) WITH ORDINALITY AS x(item, place)
 WHERE t.id = %(id)s AND x.place > %(first)s AND x.place <= %(stop)s
"""
_KEYS = """
SELECT number, key FROM tasks_task WHERE run_id = %(run)s AND number = ANY(%(reads)s::int[])
"""
# Asked without the lock first: of many items that end, few are the last or make enough room.
_WORTH = """
SELECT t.id FROM tasks_task t, LATERAL (
       SELECT count(*) AS n FROM tasks_task i
        WHERE i.parent_id = t.id
          AND i.status NOT IN ('completed', 'failed', 'cancelled', 'skipped')) open
 WHERE t.status = 'waiting' AND t.waits_for = 'items' AND (%(id)s::uuid IS NULL OR t.id = %(id)s)
   AND (open.n = 0
        OR t.next_item < t.item_count
           AND open.n <= COALESCE((t.flow->>'max_parallel')::int * 3 / 4, 0)
        OR t.flow->>'on_item_failure' IS NULL
           AND EXISTS (SELECT FROM tasks_task i WHERE i.parent_id = t.id
                        AND i.status IN ('failed', 'cancelled')))
 LIMIT 500
"""


def expand(task: Claimed) -> None:
    """Evaluate the list of a for_each task whose row is locked, and make its first items.

    Raises ExpressionError when it is no list or has more than 10,000 items.
    """
    found = render(task.flow.for_each, task.scope, path="for_each")
    if not isinstance(found, list):
        raise ExpressionError(f"must be a list, not {found!r}"[:300], "for_each")
    if len(found) > MAX_ITEMS:
        message = f"{len(found)} items, at most {MAX_ITEMS} are allowed"
        raise ExpressionError(message, "for_each")
    kept = store(task.project_id, found)
    params = {"items": kept.text, "ref": kept.reference, "count": len(found)}
    query(runs.KEEP_ITEMS, {"id": task.id, **params})
    wait(task.id, "items")
    tell(Aftermath(containers=[task.id]))


def gather(task_id: UUID) -> None:
    """Make more items where there is room, or end the for_each task when its items have ended."""
    if not query(_WORTH, {"id": task_id}):
        return
    with transaction.atomic():
        for row in query(runs.CONTAINER, {"id": task_id}):
            _gather(row, Flow.from_dict(row["flow"]))


def gatherable() -> list[UUID]:
    """Return the for_each tasks for which `gather` would do something."""
    return [row["id"] for row in query(_WORTH, {"id": None})]


def _gather(row: Row, flow: Flow) -> None:
    failed = query(_FAILED, {"id": row["id"]}) if flow.on_item_failure != "continue" else []
    if failed and flow.on_item_failure == "fail_fast":
        _fail(row, failed)
        return
    # Counted after the lock: a statement that waits for it would count what was before.
    still_open = query(_OPEN, {"id": row["id"]})[0]["open"]
    room = (flow.max_parallel or MAX_ITEMS) - still_open
    if row["next_item"] < row["item_count"]:
        _add(row, flow, min(room, row["item_count"] - row["next_item"]))
    elif not still_open:
        if failed:
            _fail(row, failed)
        else:
            _complete(row)


def _add(row: Row, flow: Flow, count: int) -> None:
    if count <= 0 or not query(_RUN_GOES_ON, {"id": row["id"]}):
        return
    first = row["next_item"]
    found = _items(row, first, first + count)
    reads = _reads(row, flow)
    for start in range(0, count, _BATCH):
        told = [
            {"id": str(uuid7()), "index": first + start + place, "item": item}
            for place, item in enumerate(found[start : start + _BATCH])
        ]
        params = {"id": row["id"], "items": json.dumps(told), "reads": reads}
        made = query(runs.ADD_ITEMS, params)
        advance([Ready.of(item) for item in made if item["status"] == "queued"])
        tell(Aftermath(undecided=[item["id"] for item in made if item["status"] == "pending"]))


def _items(row: Row, first: int, stop: int) -> list[Any]:
    if row["items_ref"]:
        whole: list[Any] = payloads.load(None, row["items_ref"])
        return whole[first:stop]
    found: list[Any] = query(_SLICE, {"id": row["id"], "first": first, "stop": stop})[0]["found"]
    return found


def _reads(row: Row, flow: Flow) -> list[int]:
    """Return what an item's own expressions read: seldom the source of the whole list."""
    body = replace(flow, condition="", for_each=None)
    keys = references_in(Node(key="item", inputs=row["inputs"], flow=body))
    found = query(_KEYS, {"run": row["run_id"], "reads": row["reads"]})
    return [one["number"] for one in found if one["key"] in keys]


def _complete(row: Row) -> None:
    size = query(_SIZE, {"id": row["id"]})[0]["bytes"]
    limit = load_config().max_result_bytes
    if size > limit:
        message = f"the results of all items have {size} bytes, more than {limit}"
        _end(row, {"type": "result_too_large", "message": message, "retryable": False})
        return
    results = [
        payloads.load(item["result"], item["result_ref"])
        for item in query(_RESULTS, {"id": row["id"]})
    ]
    try:
        complete_many([prepare_waiting(row["id"], row["fence"], results)])
    except UnusableError as error:
        _end(row, error.as_dict())


def _fail(row: Row, failed: Sequence[Row]) -> None:
    first = failed[0]
    error = first["error"] or {}
    also = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    _end(
        row,
        {
            "type": error.get("type", "failed"),
            "message": f"item {first['item_index']}: {error.get('message', '')}{also}",
        },
    )


def _end(row: Row, error: Mapping[str, Any]) -> None:
    end_task(row["id"], fence=row["fence"], status="failed", sources=["waiting"], error=error)
