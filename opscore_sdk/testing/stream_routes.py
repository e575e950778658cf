"""Routes of the in-memory platform: streams of runs, tasks and agents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opscore_sdk.testing.records import TaskRecord
from opscore_sdk.testing.routing import Asked, Reply, State, find, route
from opscore_sdk.testing.task_routes import find_run

_RUN = ["id", "workflow", "version", "status", "phase", "error", "created_at", "completed_at"]
_TASK = [
    "id",
    "run_id",
    "key",
    "uses",
    "capability",
    "status",
    "attempt",
    "losses",
    "waits_for",
    "error",
    "ready_at",
    "started_at",
    "completed_at",
    "wake_at",
]
_AGENT = ["id", "name", "kind", "status", "running_tasks", "paused", "reason", "host", "restarts"]


@route("GET", "/runs/{run_id}/stream")
def _run(asked: Asked, run_id: str) -> Reply:
    task = find_run(asked, run_id)

    def state() -> State:
        run = _shown("run", task.as_run(whole=False), _RUN)
        return {task.run_id: run, task.id: _task_shown(task)}

    return Reply(200, state=state)


@route("GET", "/tasks/{task_id}/stream")
def _task(asked: Asked, task_id: str) -> Reply:
    task: TaskRecord = find(asked.engine.tasks, task_id, "task")

    def state() -> State:
        told = task.progress or {}
        progress = {"fraction": told.get("fraction"), "message": told.get("message")}
        return {task.id: {**_task_shown(task), **progress}}

    return Reply(200, state=state)


@route("GET", "/agents/stream")
def _agents(asked: Asked) -> Reply:
    engine = asked.engine

    def state() -> State:
        rows = [agent.as_dict(engine.running(agent)) for agent in engine.agents.values()]
        return {row["id"]: _shown("agent", row, _AGENT) for row in rows}

    return Reply(200, state=state)


def _task_shown(task: TaskRecord) -> dict[str, Any]:
    held = task.session or task.last_session
    row = _shown("task", task.as_row(), _TASK)
    return {**row, "session_id": held.id if held else None}


def _shown(kind: str, row: Mapping[str, Any], fields: list[str]) -> dict[str, Any]:
    return {"type": kind, **{name: row[name] for name in fields}}
