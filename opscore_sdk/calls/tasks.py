"""Tasks: submit, show, cancel, logs, approvals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opscore_sdk.asking import Talk, as_json, ask, part, rows, waiting
from opscore_sdk.wire import Approval, Explanation, LogLine, Submitted, Task


def submit(
    capability: str,
    *,
    inputs: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
    wait_s: float | None = None,
    **options: Any,
) -> Talk[Task]:
    """Submit one task on its own; with `wait_s` the answer waits so long for its end (at most 60).

    Options: requires, prefers, sticky, priority, retry, timeout_s, key, fairness_key, and
    resource (a list of names).
    """
    body = {"capability": capability, "inputs": dict(inputs or {}), **options}
    once = {"idempotency_key": idempotency_key, **waiting(wait_s)}
    answer = yield from ask("POST", "/tasks", body=body, **once)
    return Task.read(answer)


def submit_many(
    tasks: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None
) -> Talk[list[Submitted]]:
    """Submit up to 1,000 tasks in one call, all or none; each is a mapping as `submit` takes it.

    InvalidError names each wrong one in `errors`, as `tasks[3].priority`.
    """
    body = {"tasks": [dict(task) for task in tasks]}
    answer = yield from ask("POST", "/tasks/bulk", body=body, idempotency_key=idempotency_key)
    return [Submitted.read(row) for row in answer["tasks"]]


def task(task_id: str, *, wait_s: float | None = None) -> Talk[Task]:
    """Return everything about a task: when it has ended, or after `wait_s` seconds (at most 60)."""
    answer = yield from ask("GET", f"/tasks/{part(task_id)}", **waiting(wait_s))
    return Task.read(answer)


def tasks(*, limit: int = 50, **filters: str) -> Talk[list[Task]]:
    """Return the newest tasks; filters: status, run, workflow, capability, agent."""
    return (yield from rows("/tasks", Task.read, limit, filters))


def cancel_task(task_id: str) -> Talk[Task]:
    """Cancel a task; ConflictError when it has ended."""
    answer = yield from ask("PUT", f"/tasks/{part(task_id)}/cancel")
    return Task.read(answer)


def why_task(task_id: str) -> Talk[Explanation]:
    """Return why a task waits, was skipped or failed, and when it may begin."""
    answer = yield from ask("GET", f"/tasks/{part(task_id)}/why")
    return Explanation.read(answer)


def signal_task(task_id: str, data: Any = None) -> Talk[Task]:
    """End a task's wait for its signal; ConflictError when it does not wait for one."""
    answer = yield from ask("POST", f"/tasks/{part(task_id)}/signal", text=as_json(data))
    return Task.read(answer)


def logs(
    task_id: str, *, limit: int = 200, attempt: int | None = None, stream: str | None = None
) -> Talk[list[LogLine]]:
    """Return the latest log lines of a task, oldest first."""
    query = {"attempt": attempt, "stream": stream}
    found = yield from rows(f"/tasks/{part(task_id)}/logs", LogLine.read, limit, query)
    return found[::-1]


def approvals(*, limit: int = 50) -> Talk[list[Approval]]:
    """Return the tasks that wait for a person's decision, newest first."""
    return (yield from rows("/approvals", Approval.read, limit, {}))


def approve(task_id: str, comment: str = "") -> Talk[Task]:
    """Let a task that waits for an approval go on; ConflictError when it was decided."""
    return (yield from _decide(task_id, "approve", comment))


def reject(task_id: str, comment: str = "") -> Talk[Task]:
    """Refuse what a task asks for; ConflictError when it was decided."""
    return (yield from _decide(task_id, "reject", comment))


def _decide(task_id: str, decision: str, comment: str) -> Talk[Task]:
    body = {"decision": decision, "comment": comment}
    answer = yield from ask("POST", f"/tasks/{part(task_id)}/approval", body=body)
    return Task.read(answer)
