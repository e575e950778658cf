"""The two ways on for a task whose row is locked: queued, or waiting for something."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from opscore.database import query
from tasks.dispatch import Ready, advance
from tasks.transitions import work


class RefusedError(Exception):
    """The task cannot begin; `error` is the structured reason."""

    def __init__(self, message: str, *, type: str = "invalid_inputs") -> None:  # noqa: A002 - the wire's word
        super().__init__(message)
        self.error = {"type": type, "message": message, "retryable": False}


def queue(task_id: UUID) -> None:
    """Queue the task and hint it after commit."""
    advance([Ready.of(row) for row in query(work.QUEUE, {"id": task_id})])


def wait(
    task_id: UUID,
    reason: str,
    *,
    wake_s: float | None = None,
    until: datetime | None = None,
    names: Mapping[str, Any] | None = None,
) -> int:
    """Let the task wait; return the fence under which its wait is ended.

    `reason` is one of time, signal, approval, run, items, rate, slot, breaker, failure.
    """
    rows = query(
        work.WAIT,
        {
            "id": task_id,
            "for": reason,
            "wake_s": wake_s,
            "until": until,
            "names": json.dumps(names or {}),
        },
    )
    fence: int = rows[0]["fence"]
    return fence
