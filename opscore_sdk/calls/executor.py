"""The executor protocol: sessions, claims, heartbeats, reports, messages.

Nothing here is sent twice by itself: an executor has its own reasons to try again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opscore_sdk.asking import Talk, ask, given, part
from opscore_sdk.protocol import ClaimedTask, Message, StartedSession

#: How much longer than the platform waits for work the client waits for its answer, seconds.
_MARGIN_S = 10.0


def begin_session(
    ref: str, *, host: str = "", pid: int | None = None, idempotency_key: str | None = None
) -> Talk[StartedSession]:
    """Begin a new life of an agent; an open one ends, its tasks are given back."""
    body = {**({"host": host} if host else {}), **given(pid=pid)}
    path = f"/agents/{part(ref)}/sessions"
    answer = yield from ask("POST", path, body=body, idempotency_key=idempotency_key)
    return StartedSession.read(answer)


def end_session(session_id: str) -> Talk[None]:
    """End a session; what it holds is given back. Harmless when it has ended."""
    yield from ask("DELETE", f"/sessions/{part(session_id)}")


def task_heartbeat(task_id: str, fence: int) -> Talk[None]:
    """Say that an attempt that was pushed is worked on; ConflictError: it is over, stop."""
    yield from _once(f"/tasks/{part(task_id)}/heartbeat", {"fence": fence})


def claim(session_id: str, *, limit: int = 1, wait_s: float = 0.0) -> Talk[list[ClaimedTask]]:
    """Take up to `limit` tasks, waiting up to `wait_s` for the first; ConflictError: it ended."""
    body = {"limit": limit, "wait_s": wait_s}
    path = f"/sessions/{part(session_id)}/claim"
    answer = yield from _once(path, body, _polling_s(wait_s))
    return [ClaimedTask.read(row) for row in answer["tasks"]]


def heartbeat(
    session_id: str, tasks: Iterable[tuple[str, int]], *, timeout_s: float | None = None
) -> Talk[list[str]]:
    """Say that the executor lives and has these (id, fence); return the ids it should stop.

    `timeout_s` is how long to wait for the answer: one that hangs must not keep back the next.
    """
    body = {"tasks": [{"id": task_id, "fence": fence} for task_id, fence in tasks]}
    path = f"/sessions/{part(session_id)}/heartbeat"
    answer = yield from _once(path, body, timeout_s)
    return [str(task_id) for task_id in answer["cancelled"]]


def report_completed(task_id: str, fence: int, result: Any) -> Talk[None]:
    """Record an attempt's result, any JSON; ConflictError: the attempt is over."""
    yield from _report(task_id, {"fence": fence, "status": "completed", "result": result})


def report_failed(task_id: str, fence: int, error: Mapping[str, Any]) -> Talk[None]:
    """Record {type, message, retryable}; ConflictError: the attempt is over."""
    yield from _report(task_id, {"fence": fence, "status": "failed", "error": dict(error)})


def add_logs(task_id: str, fence: int, lines: Sequence[str], *, stream: str = "log") -> Talk[None]:
    """Add lines to an attempt's log; `stream`: log, stdout or stderr. ConflictError: it is over."""
    body = {"fence": fence, "lines": list(lines), "stream": stream}
    yield from _once(f"/tasks/{part(task_id)}/logs", body)


def set_progress(
    task_id: str, fence: int, *, fraction: float | None = None, message: str = ""
) -> Talk[None]:
    """Say how far an attempt is, 0 to 1, and with what; ConflictError: it is over."""
    body = {"fence": fence, "fraction": fraction, "message": message}
    yield from _once(f"/tasks/{part(task_id)}/progress", body)


def receive_messages(
    session_id: str, *, limit: int = 10, wait_s: float = 0.0, lease_s: float = 60.0
) -> Talk[list[Message]]:
    """Take messages for the session's agent; one that is not acknowledged comes again."""
    body = {"limit": limit, "wait_s": wait_s, "lease_s": lease_s}
    path = f"/sessions/{part(session_id)}/messages/receive"
    answer = yield from _once(path, body, _polling_s(wait_s))
    return [Message.read(row) for row in answer["messages"]]


def ack_message(session_id: str, message_id: str, receipt: str) -> Talk[None]:
    """Say that a message was dealt with; ConflictError: somebody else has it by now."""
    path = f"/sessions/{part(session_id)}/messages/{part(message_id)}/ack"
    yield from _once(path, {"receipt": receipt})


def _report(task_id: str, body: Mapping[str, Any]) -> Talk[None]:
    yield from _once(f"/tasks/{part(task_id)}/report", body)


def _polling_s(wait_s: float) -> float | None:
    return wait_s + _MARGIN_S if wait_s else None


def _once(path: str, body: Any, timeout_s: float | None = None) -> Talk[Any]:
    return (yield from ask("POST", path, body=body, repeatable=False, timeout_s=timeout_s))
