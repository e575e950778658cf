"""What the agents of a chaos run do: wait a little, and leave an effect that can be counted."""

from __future__ import annotations

import time

from agents.handlers import Context, HandlerError, handler
from opscore.database import query

_EFFECT = """
INSERT INTO chaos_effect (run_id, key, task_id, attempt, exact)
VALUES (%(run)s, %(key)s, %(task)s, %(attempt)s, %(exact)s)
"""


@handler("chaos_plain")
def plain(task: Context) -> str:
    """Leave an effect at once: repeated whenever the handler is."""
    _effect(task, exact=False)
    _work(task)
    return task.key


@handler("chaos_exact", transactional=True)
def exact(task: Context) -> str:
    """Leave an effect that commits with the result: exactly one, whatever dies."""
    _effect(task, exact=True)
    _work(task)
    return task.key


@handler("chaos_flaky")
def flaky(task: Context) -> int:
    """Fail until the attempt that the inputs name."""
    _work(task)
    if task.attempt < task.inputs["succeed_at"]:
        raise HandlerError(f"attempt {task.attempt} is too early", type="too_early")
    return task.attempt


def _work(task: Context) -> None:
    time.sleep(task.inputs["ms"] / 1000)


def _effect(task: Context, *, exact: bool) -> None:
    query(
        _EFFECT,
        {
            "run": task.run_id,
            "key": task.key,
            "task": task.task_id,
            "attempt": task.attempt,
            "exact": exact,
        },
    )
