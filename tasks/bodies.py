"""How a decided task begins: queued for an agent, or a wait for something else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from opscore.database import after_commit
from opscore.durations import parse_duration
from tasks import inbox, limits
from tasks.held import Claimed
from tasks.parking import parked
from tasks.waits import RefusedError, queue, wait

#: Takes the task and how many runs are above its own; its row is locked.
Body = Callable[[Claimed, int], None]
_bodies: dict[str, Body] = {}

#: What an agent does; `end` is the platform's own evaluation of a run's outputs.
AT_AGENTS = frozenset({"agent", "end"})


def body(uses: str) -> Callable[[Body], Body]:
    """Register what a task with `uses: <uses>` or `uses: <uses>:…` waits for."""

    def register(function: Body) -> Body:
        _bodies[uses] = function
        return function

    return register


def enter(task: Claimed, depth: int, *, in_rate: bool = False, let_through: bool = False) -> None:
    """Begin a task whose row is locked.

    `in_rate`: it waited for its rate limit already; `let_through`: a breaker let it go.

    Raises ExpressionError, RefusedError.
    """
    if task.uses not in AT_AGENTS:
        _bodies[task.uses.partition(":")[0]](task, depth)
    elif _may_begin(task, in_rate=in_rate, let_through=let_through):
        queue(task.id)


def _may_begin(task: Claimed, *, in_rate: bool, let_through: bool) -> bool:
    at = (task.id, task.project_id, task.flow.resources)
    if not let_through:
        return not parked(*at) and limits.admitted(task, in_rate=in_rate)
    # Others may have taken its place while it waited for a limit.
    return limits.admitted(task, in_rate=in_rate) and not parked(*at, let_through=True)


@body("wait")
def wait_for_time(task: Claimed, depth: int) -> None:
    """`with: {duration}` or `{until: RFC 3339}`; a time that has passed is no wait."""
    inputs = task.inputs
    if "until" in inputs:
        wait(task.id, "time", until=_moment(inputs["until"]))
    else:
        wait(task.id, "time", wake_s=_seconds(inputs.get("duration", 0), "duration"))


@body("signal")
def wait_for_signal(task: Claimed, depth: int) -> None:
    """`with: {name}`; `tasks.inbox` ends the wait, also by what was sent before."""
    name = str(task.inputs.get("name") or task.key)
    wait(task.id, "signal", names={"signal": name})
    after_commit(lambda: inbox.deliver(task.run_id, name))


@body("approval")
def wait_for_approval(task: Claimed, depth: int) -> None:
    """`with: {message, role, expires, on_expiry}`; `tasks.inbox` decides."""
    inputs = task.inputs
    asked = {name: inputs[name] for name in ("message", "role", "on_expiry") if name in inputs}
    for name, value in asked.items():
        if not isinstance(value, str):
            raise RefusedError(f"{name} must be text, not {value!r}"[:300])
    expires = inputs.get("expires")
    wake_s = None if expires is None else _seconds(expires, "expires")
    wait(task.id, "approval", wake_s=wake_s, names={"approval": asked})


def _seconds(value: Any, name: str) -> float:
    if value == 0:
        return 0.0
    try:
        return parse_duration(value)
    except ValueError as error:
        raise RefusedError(f"{name}: {error}") from None


def _moment(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        message = f"until must be a time as 2030-01-31T12:00:00Z, not {value!r}"
        raise RefusedError(message) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
