"""What a task and a run may be, and how that changes. `tasks.transitions` is the only writer."""

from __future__ import annotations

from opscore.states import Machine

TASK = Machine(
    {
        "pending": frozenset({"queued", "waiting", "skipped", "failed", "cancelled"}),
        # queued -> waiting: no agent took it in time; it is held to fail, to be retried or caught.
        "queued": frozenset({"running", "waiting", "cancelled", "failed"}),
        # running -> queued: its session ended, the task is given back (a loss, no attempt).
        "running": frozenset({"completed", "failed", "retrying", "queued", "cancelled"}),
        "waiting": frozenset({"queued", "completed", "failed", "retrying", "cancelled"}),
        "retrying": frozenset({"queued", "waiting", "failed", "cancelled"}),
        "completed": frozenset(),
        "failed": frozenset(),
        "cancelled": frozenset(),
        "skipped": frozenset(),
    }
)
RUN = Machine(
    {
        "created": frozenset({"running", "cancelling", "cancelled", "completed", "failed"}),
        "running": frozenset({"paused", "cancelling", "cancelled", "completed", "failed"}),
        "paused": frozenset({"running", "cancelling", "cancelled", "completed", "failed"}),
        "cancelling": frozenset({"cancelled"}),
        "completed": frozenset(),
        "failed": frozenset(),
        "cancelled": frozenset(),
    }
)
