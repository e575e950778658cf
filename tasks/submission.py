"""Starting work: a run with all its tasks is one transaction, hinted after its commit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection, transaction

from agents import queues
from opscore.database import after_commit, query
from opscore.errors import InvalidError, Problem
from opscore.ids import uuid7
from opscore.loading import load
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

#: Length of `Run.fairness_key`.
MAX_FAIRNESS_KEY = 100

# One statement for runs and graphs of any size: a submit is one round trip.
_INSERT = """
WITH run AS (
  INSERT INTO tasks_run (id, project_id, workflow, version, workflow_version_id, status, inputs,
                         priority, task_count, open_sinks, phase, epilogue, parent_task_id, depth,
                         rerun_of, concurrency, limit_key, fairness_key)
  SELECT r.id, %(project)s, r.workflow, r.version, r.workflow_version_id, r.status, r.inputs,
         r.priority, r.task_count, r.open_sinks, 'main', r.epilogue, r.parent_task_id, r.depth,
         NULL, r.concurrency, r.limit_key, r.fairness_key
    FROM jsonb_to_recordset(%(runs)s::jsonb) AS r(
         id uuid, workflow text, version text, workflow_version_id uuid, status text,
         inputs jsonb, priority int, task_count int, open_sinks int, epilogue bool,
         parent_task_id uuid, depth int, concurrency jsonb, limit_key text, fairness_key text))
INSERT INTO tasks_task (id, project_id, run_id, number, key, uses, capability, requires, queue,
                        priority, status, attempt, losses, retry, tried_before, timeout_s,
                        heartbeat_s, queue_timeout_s, fence, "join", pending, needs_failed,
                        needs_skipped, in_degree, successors, is_sink, plain, direct, phase, flow,
                        names, waits_for, limit_key, next_item, reads, uncarried, inputs,
                        outputs_template, ready_at, hinted_at, hints)
SELECT x.id, %(project)s, x.run_id, x.number, x.key, x.uses, x.capability, x.requires, x.queue,
       x.priority, CASE WHEN x.ready THEN 'queued' ELSE 'pending' END, 1, 0, x.retry, 0,
       x.timeout_s, x.heartbeat_s, x.queue_timeout_s, 0, x."join", x.pending, 0,
       0, x.in_degree, x.successors, x.is_sink, x.plain, x.direct, x.phase, x.flow,
       '{}', '', '', 0, x.reads, false, x.inputs,
       x.outputs_template, CASE WHEN x.ready THEN clock_timestamp() END,
       -- Without its place the run's tasks are not hinted: see control.kick.
       CASE WHEN NOT x.ready THEN NULL WHEN x.stands_in_line THEN to_timestamp(0)
            ELSE now() END, 0
  FROM jsonb_to_recordset(%(tasks)s::jsonb) AS x(
       id uuid, run_id uuid, number int, key text, uses text, capability text, requires varchar[],
       queue text, priority int, retry jsonb, timeout_s float, heartbeat_s float,
       queue_timeout_s float, "join" text, pending int, in_degree int, successors int[],
       is_sink bool, plain bool, direct bool, phase text, flow jsonb, reads int[], inputs jsonb,
       outputs_template jsonb, ready bool, stands_in_line bool)
"""
#: What `_INSERT` takes of a run, as it stands in the object.
_RUN_COLUMNS = (
    "workflow",
    "version",
    "workflow_version_id",
    "status",
    "inputs",
    "priority",
    "task_count",
    "open_sinks",
    "epilogue",
    "parent_task_id",
    "depth",
    "concurrency",
    "limit_key",
    "fairness_key",
)


@dataclass(frozen=True, slots=True)
class Single:
    """One task on its own, as `submit_tasks` takes it."""

    node: Node
    priority: int = 5
    fairness_key: str = ""


class Submitted(NamedTuple):
    """The ids of a task on its own and of its run."""

    id: UUID
    run_id: UUID
    key: str


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
    fairness_key: str = "",
) -> Run:
    """Write a run with all its tasks and hint the ready ones after commit.

    Joins an open transaction. With `concurrency` the run may have to wait as `created`.
    `fairness_key` says whose work it is, `actor` where nothing is said: where the work of
    several waits for the same agents, they take turns.
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
        fairness_key=(fairness_key or actor)[:MAX_FAIRNESS_KEY],
    )
    queued = _queues(project, graph.vertices)
    rows = [_row(run, vertex, queue) for vertex, queue in zip(graph.vertices, queued, strict=True)]
    with _whole(concurrency):
        _insert(project, [run], rows)
        if concurrency:
            _stand_in_line(run, concurrency)
        _announce(run, rows, actor)
    return run


def _whole(concurrency: Concurrency | None) -> AbstractContextManager[object]:
    # One statement alone is whole by itself; a transaction would be two more round trips. In
    # somebody else's it needs a savepoint: he may go on after our error.
    if concurrency or connection.in_atomic_block:
        return transaction.atomic()
    return nullcontext()


def _insert(project: Project, runs: Sequence[Run], tasks: Sequence[dict[str, Any]]) -> None:
    query(
        _INSERT,
        {
            "project": project.pk,
            "runs": json.dumps([_run_row(run) for run in runs]),
            "tasks": json.dumps(tasks),
        },
    )


def _run_row(run: Run) -> dict[str, Any]:
    ids: dict[str, str | None] = {"id": str(run.id)}
    for name in ("workflow_version_id", "parent_task_id"):
        value = getattr(run, name)
        ids[name] = None if value is None else str(value)
    return {name: getattr(run, name) for name in _RUN_COLUMNS} | ids


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


def submit_task(
    project: Project, node: Node, *, priority: int = 5, actor: str = "", fairness_key: str = ""
) -> Task:
    """Write one task on its own (a graph of one) and hint it after commit; see `start_run`."""
    run = start_run(
        project,
        single(node),
        inputs={},
        priority=priority,
        actor=actor,
        fairness_key=fairness_key,
    )
    return load(Task, run_id=run.id)


def submit_tasks(project: Project, tasks: Sequence[Single], *, actor: str = "") -> list[Submitted]:
    """Write many tasks on their own, all or none, and hint them after commit, in this order.

    One statement for all of them: a thousand take a fifth of a second through the API.
    Raises InvalidError naming each wrong one as `tasks[3].priority`; then none is written.
    """
    wrong = [
        Problem(_bad_priority(task.priority), f"tasks[{number}].priority")
        for number, task in enumerate(tasks)
        if not _is_priority(task.priority)
    ]
    if wrong:
        raise InvalidError("No task was submitted.", wrong)
    # Ids in order: lists show them so, and those of one moment are served so.
    run_ids, task_ids = (sorted(uuid7() for _ in tasks) for _ in range(2))
    runs = [
        _single_run(project, task, id_, actor) for task, id_ in zip(tasks, run_ids, strict=True)
    ]
    graphs = [single(task.node) for task in tasks]
    queued = _queues(project, [vertex for graph in graphs for vertex in graph.vertices])
    rows = [
        {**_row(run, graph.vertices[0], queue), "id": str(task_id)}
        for run, graph, queue, task_id in zip(runs, graphs, queued, task_ids, strict=True)
    ]
    with _whole(None):
        _insert(project, runs, rows)
    after_commit(lambda: log.info("tasks.submitted", tasks=len(rows), actor=actor))
    _start(rows)
    return [
        Submitted(UUID(row["id"]), run.id, row["key"]) for run, row in zip(runs, rows, strict=True)
    ]


def _single_run(project: Project, task: Single, run_id: UUID, actor: str) -> Run:
    return Run(
        id=run_id,
        project=project,
        priority=task.priority,
        fairness_key=(task.fairness_key or actor)[:MAX_FAIRNESS_KEY],
    )


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
        _start(rows)


def _start(rows: Sequence[Mapping[str, Any]]) -> None:
    """Hint what is ready, and have the others decided that wait for nothing."""
    ready = [row for row in rows if row["ready"]]
    advance([Ready.of({**row, "attempt": 1, "uncarried": False}) for row in ready])
    undecided = [row for row in rows if not row["pending"] and not row["ready"]]
    tell(Aftermath(undecided=[row["id"] for row in undecided]))


def _queues(project: Project, vertices: Sequence[Vertex]) -> list[str]:
    """Return the queue of each vertex; unknown ones are made in one statement."""
    nodes = [vertex.node for vertex in vertices]
    at_agents = [node for node in nodes if node.uses == "agent"]
    names = queues.ensure_all(project, [(node.capability, node.requires) for node in at_agents])
    found = iter(names)
    return [next(found) if node.uses == "agent" else PLATFORM_QUEUE for node in nodes]


def _row(run: Run, vertex: Vertex, queue: str) -> dict[str, Any]:
    node = vertex.node
    priority = run.priority if node.priority is None else node.priority
    _check_priority(priority)
    at_platform = node.uses == "end"
    degree = len(vertex.needs)
    return {
        "id": str(uuid7()),
        "run_id": str(run.id),
        "stands_in_line": run.status == "created",
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
        "wishes": node.flow.wishes,
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
            row["number"]: Address(
                UUID(row["id"]),
                1,
                row["queue"],
                row["priority"],
                row["plain"] and not row["wishes"],
            )
            for row in rows
        },
    )


def _check_priority(priority: int) -> None:
    if not _is_priority(priority):
        problem = Problem(_bad_priority(priority), "priority")
        raise InvalidError("The priority is not valid.", [problem])


def _is_priority(priority: int) -> bool:
    return 0 <= priority <= 9


def _bad_priority(priority: int) -> str:
    return f"must be 0 to 9 (9 is served first), not {priority}"
