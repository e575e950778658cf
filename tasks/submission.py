"""Starting work: a run with all its tasks is one transaction, hinted after its commit."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.db import transaction

from agents import queues
from opscore.database import after_commit, query
from opscore.errors import InvalidError, Problem
from opscore.ids import uuid7
from opscore.logs import get_logger
from opscore.models import Project
from opscore.schedule import PLATFORM_QUEUE
from tasks import control, limits
from tasks.aftermath import Aftermath, tell
from tasks.dispatch import Ready, advance
from tasks.expressions import render
from tasks.flow import Concurrency
from tasks.graph import Graph, Node, Vertex, single
from tasks.models import Run, Task
from tasks.segments import Spot
from tasks.topology import Address, Topology, remember

log = get_logger(__name__)

# One statement for a graph of any size: a submit is one round trip.
_INSERT = """
WITH run AS (
  INSERT INTO tasks_run (id, project_id, workflow, version, workflow_version_id, status, inputs,
                         priority, task_count, open_sinks, phase, epilogue, parent_task_id, depth,
                         rerun_of, concurrency, limit_key)
  VALUES (%(run)s, %(project)s, %(workflow)s, %(version)s, %(version_id)s, %(status)s,
          %(inputs)s::jsonb, %(priority)s, %(count)s, %(sinks)s, 'main', %(epilogue)s,
          %(parent)s, %(depth)s, NULL, %(concurrency)s::jsonb, %(limit_key)s)
  RETURNING id)
INSERT INTO tasks_task (id, project_id, run_id, number, key, uses, capability, requires, queue,
                        priority, status, attempt, losses, retry, tried_before, timeout_s,
                        heartbeat_s, queue_timeout_s, fence, "join", pending, needs_failed,
                        needs_skipped, in_degree, successors, is_sink, plain, direct, phase, flow,
                        names, waits_for, limit_key, next_item, reads, uncarried, inputs,
                        outputs_template, ready_at, hinted_at, hints)
SELECT x.id, %(project)s, run.id, x.number, x.key, x.uses, x.capability, x.requires, x.queue,
       x.priority, CASE WHEN x.ready THEN 'queued' ELSE 'pending' END, 1, 0, x.retry, 0,
       x.timeout_s, x.heartbeat_s, x.queue_timeout_s, 0, x."join", x.pending, 0,
       0, x.in_degree, x.successors, x.is_sink, x.plain, x.direct, x.phase, x.flow,
       '{}', '', '', 0, x.reads, false, x.inputs,
       x.outputs_template, CASE WHEN x.ready THEN clock_timestamp() END,
       CASE WHEN x.ready THEN now() END, 0
  FROM run, jsonb_to_recordset(%(tasks)s::jsonb) AS x(
       id uuid, number int, key text, uses text, capability text, requires varchar[], queue text,
       priority int, retry jsonb, timeout_s float, heartbeat_s float, queue_timeout_s float,
       "join" text, pending int, in_degree int, successors int[], is_sink bool, plain bool,
       direct bool, phase text, flow jsonb, reads int[], inputs jsonb, outputs_template jsonb,
       ready bool)
"""


def start_run(
    project: Project,
    graph: Graph,
    *,
    inputs: dict[str, Any],
    workflow: str = "",
    version: str = "",
    workflow_version_id: UUID | None = None,
    priority: int = 5,
    actor: str = "",
    concurrency: Concurrency | None = None,
    parent_task_id: UUID | None = None,
    depth: int = 0,
) -> Run:
    """Write a run with all its tasks and hint the ready ones after commit.

    Joins an open transaction. With `concurrency` the run may have to wait as `created`.
    Raises InvalidError for a priority outside 0-9, ConflictError when its concurrency key is
    taken and it does not want to wait.
    """
    _check_priority(priority)
    run = Run(
        id=uuid7(),
        project=project,
        workflow=workflow,
        version=version,
        workflow_version_id=workflow_version_id,
        status="created" if concurrency else "running",
        inputs=inputs,
        priority=priority,
        task_count=sum(vertex.node.uses != "end" for vertex in graph.vertices),
        open_sinks=graph.sinks,
        epilogue=graph.has_epilogue,
        parent_task_id=parent_task_id,
        depth=depth,
        concurrency=concurrency.as_dict() if concurrency else None,
        limit_key=_limit_key(concurrency, inputs, workflow),
    )
    queued = _queues(project, graph)
    rows = [
        _row(vertex, queue, priority) for vertex, queue in zip(graph.vertices, queued, strict=True)
    ]
    with transaction.atomic():
        _insert(run, rows)
        if concurrency:
            _stand_in_line(run, concurrency)
        _announce(run, rows, actor)
    return run


def _insert(run: Run, rows: list[dict[str, Any]]) -> None:
    query(
        _INSERT,
        {
            "run": run.id,
            "project": run.project_id,
            "workflow": run.workflow,
            "version": run.version,
            "version_id": run.workflow_version_id,
            "status": run.status,
            "inputs": json.dumps(run.inputs),
            "priority": run.priority,
            "count": run.task_count,
            "sinks": run.open_sinks,
            "epilogue": run.epilogue,
            "parent": run.parent_task_id,
            "depth": run.depth,
            "concurrency": json.dumps(run.concurrency) if run.concurrency else None,
            "limit_key": run.limit_key,
            "tasks": json.dumps(rows),
        },
    )


def _limit_key(limit: Concurrency | None, inputs: dict[str, Any], workflow: str) -> str:
    if limit is None:
        return ""
    scope = {"inputs": inputs, "run": {"workflow": workflow}}
    key = str(render(limit.key or workflow, scope, path="concurrency.key"))[:300]
    if not key:
        raise InvalidError(
            "The run cannot start.", [Problem("the concurrency key is empty", "concurrency.key")]
        )
    return key


def _stand_in_line(run: Run, limit: Concurrency) -> None:
    limits.refuse_run(run.project_id, run.id, limit, run.limit_key)
    after_commit(lambda: control.admit_runs(run.project_id, run.limit_key))


def submit_task(project: Project, node: Node, *, priority: int = 5, actor: str = "") -> Task:
    """Write one task on its own (a graph of one) and hint it after commit."""
    run = start_run(project, single(node), inputs={}, priority=priority, actor=actor)
    return Task.objects.select_related("run").get(run=run)


def _announce(run: Run, rows: list[dict[str, Any]], actor: str) -> None:
    if len(rows) > 1:
        remember(run.id, _topology(rows))
    after_commit(
        lambda: log.info(
            "run.started",
            run=str(run.id),
            workflow=run.workflow,
            tasks=run.task_count,
            **({"task": rows[0]["id"]} if len(rows) == 1 else {}),
            **({"actor": actor} if actor else {}),
        )
    )
    if run.status == "running":
        ready = [row for row in rows if row["ready"]]
        advance(
            [Ready.of({**row, "run_id": run.id, "attempt": 1, "uncarried": False}) for row in ready]
        )
        undecided = [row for row in rows if not row["pending"] and not row["ready"]]
        tell(Aftermath(undecided=[row["id"] for row in undecided]))


def _queues(project: Project, graph: Graph) -> list[str]:
    """Return the queue of each vertex; unknown ones are made in one statement."""
    nodes = [vertex.node for vertex in graph.vertices]
    at_agents = [node for node in nodes if node.uses == "agent"]
    names = queues.ensure_all(project, [(node.capability, node.requires) for node in at_agents])
    found = iter(names)
    return [next(found) if node.uses == "agent" else PLATFORM_QUEUE for node in nodes]


def _row(vertex: Vertex, queue: str, run_priority: int) -> dict[str, Any]:
    node = vertex.node
    priority = run_priority if node.priority is None else node.priority
    _check_priority(priority)
    at_platform = node.uses == "end"
    degree = len(vertex.needs)
    return {
        "id": str(uuid7()),
        "number": vertex.number,
        "key": node.key,
        "uses": node.uses,
        "capability": node.capability,
        "requires": sorted(set(node.requires)),
        "queue": queue,
        "priority": 9 if at_platform else priority,
        "retry": node.retry.as_dict(),
        "timeout_s": node.timeout_s,
        "heartbeat_s": node.flow.heartbeat_s,
        "queue_timeout_s": node.flow.queue_timeout_s,
        "join": node.join,
        # A task of `finally` waits for its phase too.
        "pending": degree + (not degree and vertex.phase == "finally"),
        "in_degree": degree,
        "successors": list(vertex.successors),
        "is_sink": vertex.is_sink,
        "plain": node.is_plain,
        "direct": node.is_direct,
        "ready": node.is_plain and not degree and vertex.phase == "main",
        "phase": vertex.phase,
        "flow": node.flow.as_dict(),
        "reads": list(vertex.reads),
        "inputs": dict(node.inputs),
        "outputs_template": dict(node.outputs) if node.outputs is not None else None,
    }


def _topology(rows: list[dict[str, Any]]) -> Topology:
    return Topology(
        {
            row["number"]: Spot(row["number"], row["in_degree"], tuple(row["successors"]))
            for row in rows
        },
        {
            row["number"]: Address(UUID(row["id"]), 1, row["queue"], row["priority"], row["plain"])
            for row in rows
        },
    )


def _check_priority(priority: int) -> None:
    if not 0 <= priority <= 9:
        problem = Problem(f"must be 0 to 9 (9 is served first), not {priority}", "priority")
        raise InvalidError("The priority is not valid.", [problem])
