"""Tasks: submit, show, cancel, logs, approvals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from opscore_sdk.asking import Talk, ask, part, rows
from opscore_sdk.wire import Approval, Explanation, LogLine, Task


def submit(
    capability: str,
    *,
    inputs: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
    **options: Any,
) -> Talk[Task]:
    """Submit one task on its own; options: requires, priority, retry, timeout_s, key."""
    body = {"capability": capability, "inputs": dict(inputs or {}), **options}
    answer = yield from ask("POST", "/tasks", body=body, idempotency_key=idempotency_key)
    return Task.read(answer)


def task(task_id: str) -> Talk[Task]:
    """Return everything about a task."""
    answer = yield from ask("GET", f"/tasks/{part(task_id)}")
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
    answer = yield from ask("POST", f"/tasks/{part(task_id)}/signal", text=json.dumps(data))
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
