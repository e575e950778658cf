"""Routes of the in-memory platform: tasks, and runs of one task."""

from __future__ import annotations

import re
from dataclasses import replace
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
from opscore_sdk.testing.routing import FENCE, Asked, Reply, find, page, route

_WAIT = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([sm]?)")
_LONGEST_WAIT_S = 60.0
_weight = number(-100, 100, whole=True)


@route("POST", "/tasks")
def _submit(asked: Asked) -> Reply:
    wait_s = wait_of(asked)
    task = _added(asked, _wanted(asked.body))

    def renew() -> Reply:
        return Reply(201, task.as_dict(), wait_s=0 if task.has_ended else wait_s)

    return replace(renew(), renew=renew)


@route("POST", "/tasks/bulk")
def _submit_many(asked: Asked) -> Reply:
    said = checked(asked.body, {"tasks": _many})
    errors: dict[str, str] = {}
    wanted = [_wanted_of(body, place, errors) for place, body in enumerate(said["tasks"])]
    if errors:
        raise Refused(400, "What was sent is not valid.", errors)
    made = [_added(asked, one) for one in wanted]
    shown = [{"id": task.id, "run_id": task.run_id, "key": task.key} for task in made]
    return Reply(201, {"tasks": shown})


def _wanted_of(body: Any, place: int, errors: dict[str, str]) -> dict[str, Any]:
    try:
        return _wanted(body)
    except Refused as refused:
        for one in refused.errors:
            errors[f"tasks[{place}].{one['path']}".rstrip(".")] = one["message"]
        return {}


def _many(value: Any) -> str:
    good = isinstance(value, list) and 1 <= len(value) <= 1000
    return "" if good else "a list of 1 to 1000 tasks is expected"


def _wanted(body: Any) -> dict[str, Any]:
    said = checked(
        body,
        {"capability": text(80, blank=False)},
        inputs=mapping,
        requires=words,
        prefers=_weights,
        sticky=text(300, blank=False),
        priority=number(0, 9, whole=True),
        retry=_retry,
        timeout_s=number(0.001, 30 * 86400, null=True),
        key=text(200, blank=False),
        fairness_key=text(100, blank=False),
        resource=words,
    )
    # By age alone: neither do tenants take turns here, nor is a resource ever shut off.
    for ignored in ("fairness_key", "resource"):
        said.pop(ignored, None)
    return {"key": "task", "inputs": {}, **said}


def _added(asked: Asked, wanted: dict[str, Any]) -> TaskRecord:
    now = asked.engine.now()
    task = TaskRecord(new_id(now), new_id(now), created_at=now, ready_at=now, **wanted)
    asked.engine.tasks[task.id] = task
    return task


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
    task = _find_task(asked, task_id)
    return Reply(200, task.as_dict(), wait_s=0 if task.has_ended else wait_of(asked))


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
    task = find_run(asked, run_id)
    wait_s = 0 if task.has_ended else wait_of(asked)
    return Reply(200, task.as_run(whole=True), wait_s=wait_s)


@route("PUT", "/runs/{run_id}/cancel")
def _cancel_run(asked: Asked, run_id: str) -> Reply:
    task = find_run(asked, run_id)
    asked.engine.cancel(task)
    return Reply(200, task.as_run(whole=True))


@route("POST", "/runs/{run_id}/pause")
def _pause_run(asked: Asked, run_id: str) -> Reply:
    return _set_paused(asked, run_id, paused=True)


@route("POST", "/runs/{run_id}/resume")
def _resume_run(asked: Asked, run_id: str) -> Reply:
    return _set_paused(asked, run_id, paused=False)


def wait_of(asked: Asked) -> float:
    """Return the seconds of `?wait=`. Refused: 400."""
    found = _WAIT.fullmatch(asked.query.get("wait", "0"))
    seconds = float(found[1]) * (60 if found[2] == "m" else 1) if found else -1.0
    if not 0 <= seconds <= _LONGEST_WAIT_S:
        wrong = f"30, 30s or 1m is expected, {_LONGEST_WAIT_S:g} s at most"
        raise Refused(400, "The wait cannot be read.", {"wait": wrong})
    return seconds


def _find_task(asked: Asked, task_id: str) -> TaskRecord:
    task: TaskRecord = find(asked.engine.tasks, task_id, "task")
    return task


def find_run(asked: Asked, run_id: str) -> TaskRecord:
    """Return the task that a run is. Refused: 404."""
    task: TaskRecord = find({t.run_id: t for t in asked.engine.tasks.values()}, run_id, "run")
    return task


def _set_paused(asked: Asked, run_id: str, *, paused: bool) -> Reply:
    task = find_run(asked, run_id)
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


def _weights(value: Any) -> str:
    good = isinstance(value, dict) and not any(map(_weight, value.values()))
    return "" if good else "an object of labels and weights, -100 to 100, is expected"


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
