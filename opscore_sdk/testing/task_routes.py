"""Routes of the in-memory platform: tasks, and runs of one task."""

from __future__ import annotations

from typing import Any

from opscore_sdk.testing.records import TaskRecord, new_id
from opscore_sdk.testing.refusals import (
    Refused,
    anything,
    checked,
    mapping,
    number,
    one_of,
    text,
    words,
)
from opscore_sdk.testing.routing import FENCE, MAX_NUMBER, Asked, Reply, find, page, route


@route("POST", "/tasks")
def _submit(asked: Asked) -> Reply:
    said = checked(
        asked.body,
        {"capability": text(80, blank=False)},
        inputs=mapping,
        requires=words,
        priority=number(0, 9, whole=True),
        retry=_retry,
        timeout_s=number(0.001, 30 * 86400, null=True),
        key=text(200, blank=False),
    )
    now = asked.engine.now()
    kept = {"key": "task", "inputs": {}, **said}
    task = TaskRecord(new_id(now), new_id(now), created_at=now, ready_at=now, **kept)
    asked.engine.tasks[task.id] = task
    return Reply(201, task.as_dict())


@route("GET", "/tasks")
def _tasks(asked: Asked) -> Reply:
    rows = [task.as_row() for task in asked.engine.tasks.values()]
    query = asked.query
    wanted = {"capability": "capability", "run": "run_id", "status": "status"}
    for name, field in wanted.items():
        if name in query:
            rows = [row for row in rows if row[field] in query[name].split(",")]
    if "agent" in query:
        agents = [(row, row["agent"] or {}) for row in rows]
        rows = [row for row, agent in agents if query["agent"] in agent.values()]
    return page("/tasks", rows, query)


@route("GET", "/tasks/{task_id}")
def _task(asked: Asked, task_id: str) -> Reply:
    return Reply(200, _find_task(asked, task_id).as_dict())


@route("PUT", "/tasks/{task_id}/cancel")
def _cancel(asked: Asked, task_id: str) -> Reply:
    task = _find_task(asked, task_id)
    asked.engine.cancel(task)
    return Reply(200, task.as_dict())


@route("POST", "/tasks/{task_id}/report")
def _report(asked: Asked, task_id: str) -> Reply:
    required = {"fence": FENCE, "status": one_of("completed", "failed")}
    said = checked(asked.body, required, result=anything, error=_error)
    task = _find_task(asked, task_id)
    if task.id in asked.refused_reports:
        asked.engine.take_away(task)
        raise Refused(409, "The report is refused: this attempt is over.")
    if said["status"] == "completed":
        asked.engine.complete(task, said["fence"], said.get("result"))
    elif "error" in said:
        asked.engine.fail(task, said["fence"], said["error"])
    else:
        raise Refused(
            400, "A failed attempt needs an error.", {"error": "say why: {type, message}"}
        )
    return Reply(204)


@route("GET", "/tasks/{task_id}/logs")
def _logs(asked: Asked, task_id: str) -> Reply:
    rows = _find_task(asked, task_id).logs
    for name in ("attempt", "stream"):
        if name in asked.query:
            rows = [row for row in rows if str(row[name]) == asked.query[name]]
    return page(f"/tasks/{task_id}/logs", rows, asked.query)


@route("POST", "/tasks/{task_id}/logs")
def _add_logs(asked: Asked, task_id: str) -> Reply:
    required = {"fence": FENCE, "lines": _lines}
    said = checked(asked.body, required, stream=one_of("log", "stdout", "stderr"))
    task = _find_task(asked, task_id)
    asked.engine.log(task, said["fence"], said["lines"], said.get("stream", "log"))
    return Reply(204)


@route("POST", "/tasks/{task_id}/progress")
def _progress(asked: Asked, task_id: str) -> Reply:
    fraction = number(0, 1, null=True)
    said = checked(asked.body, {"fence": FENCE}, fraction=fraction, message=text(500))
    task = _find_task(asked, task_id)
    asked.engine.tell(task, said["fence"], said.get("fraction"), said.get("message", ""))
    return Reply(204)


# Runs: each is one task


@route("GET", "/runs")
def _runs(asked: Asked) -> Reply:
    rows = [task.as_run(whole=False) for task in asked.engine.tasks.values()]
    for name in ("status", "workflow"):
        if name in asked.query:
            rows = [row for row in rows if row[name] in asked.query[name].split(",")]
    if asked.query.get("parent", "none") != "none":
        # No task here starts a run.
        rows = []
    return page("/runs", rows, asked.query)


@route("GET", "/runs/{run_id}")
def _run(asked: Asked, run_id: str) -> Reply:
    return Reply(200, _find_run(asked, run_id).as_run(whole=True))


@route("PUT", "/runs/{run_id}/cancel")
def _cancel_run(asked: Asked, run_id: str) -> Reply:
    task = _find_run(asked, run_id)
    asked.engine.cancel(task)
    return Reply(200, task.as_run(whole=True))


@route("POST", "/runs/{run_id}/pause")
def _pause_run(asked: Asked, run_id: str) -> Reply:
    return _set_paused(asked, run_id, paused=True)


@route("POST", "/runs/{run_id}/resume")
def _resume_run(asked: Asked, run_id: str) -> Reply:
    return _set_paused(asked, run_id, paused=False)


@route("GET", "/runs/{run_id}/context")
def _entries(asked: Asked, run_id: str) -> Reply:
    _find_run(asked, run_id)
    return Reply(200, {"entries": asked.sharing.entries(run_id)})


@route("GET", "/runs/{run_id}/context/{key}")
def _entry(asked: Asked, run_id: str, key: str) -> Reply:
    _find_run(asked, run_id)
    return Reply(200, asked.sharing.get(run_id, key))


@route("PUT", "/runs/{run_id}/context/{key}")
def _put_entry(asked: Asked, run_id: str, key: str) -> Reply:
    version = number(0, MAX_NUMBER, whole=True, null=True)
    said = checked(asked.body, {"value": anything}, if_version=version)
    _find_run(asked, run_id)
    return Reply(200, asked.sharing.put(run_id, key, said, asked.actor))


@route("DELETE", "/runs/{run_id}/context/{key}")
def _delete_entry(asked: Asked, run_id: str, key: str) -> Reply:
    _find_run(asked, run_id)
    asked.sharing.delete(run_id, key)
    return Reply(204)


@route("POST", "/runs/{run_id}/messages")
def _send(asked: Asked, run_id: str) -> Reply:
    fields = {"topic": text(200), "body": anything, "ttl_s": number(1, 30 * 86400)}
    said = checked(asked.body, {"to": _receiver}, **fields)
    _find_run(asked, run_id)
    message = asked.sharing.send(run_id, said, asked.actor)
    return Reply(201, {"id": message.id})


def _find_task(asked: Asked, task_id: str) -> TaskRecord:
    task: TaskRecord = find(asked.engine.tasks, task_id, "task")
    return task


def _find_run(asked: Asked, run_id: str) -> TaskRecord:
    task: TaskRecord = find({t.run_id: t for t in asked.engine.tasks.values()}, run_id, "run")
    return task


def _set_paused(asked: Asked, run_id: str, *, paused: bool) -> Reply:
    task = _find_run(asked, run_id)
    if task.has_ended:
        raise Refused(409, f"The run has ended: it is {task.status}.")
    task.run_paused = paused
    return Reply(200, task.as_run(whole=True))


def _error(value: Any) -> str:
    good = isinstance(value, dict) and all(
        isinstance(value.get(name), str) and value[name] for name in ("type", "message")
    )
    return "" if good else "an object with type and message is expected"


def _lines(value: Any) -> str:
    good = isinstance(value, list) and all(isinstance(line, str) for line in value)
    return "" if good and len(value) <= 1000 else "a list of at most 1000 texts is expected"


def _retry(value: Any) -> str:
    rules = {
        "limit": number(0, 100, whole=True),
        "initial_s": number(0, 86400),
        "factor": number(1, 100),
        "max_s": number(0, 7 * 86400),
    }
    if not isinstance(value, dict) or "limit" not in value:
        return "an object with `limit` is expected"
    wrong = [name for name in value if name not in rules or rules[name](value[name])]
    return f"not valid: {', '.join(wrong)}" if wrong else ""


def _receiver(value: Any) -> str:
    good = isinstance(value, dict) and set(value) in ({"agent"}, {"capability"})
    return "" if good else "{agent: name} or {capability: word} is expected"
