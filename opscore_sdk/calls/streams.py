"""Streams: what is said of something, as it happens; each yields `Change`s."""

from __future__ import annotations

from functools import partial

from opscore_sdk.asking import part
from opscore_sdk.listening import Listener, has_ended


def stream_run(run_id: str, *, patience_s: float = 0.0) -> Listener:
    """Yield what changes of a run and its tasks, all of it first, until the run has ended.

    A connection that breaks is made again, for `patience_s` seconds at a time.
    """
    is_last = partial(has_ended, "run")
    return Listener(f"/runs/{part(run_id)}/stream", patience_s=patience_s, is_last=is_last)


def stream_task(task_id: str, *, patience_s: float = 0.0) -> Listener:
    """Yield what changes of a task, its progress too, until it has ended."""
    is_last = partial(has_ended, "task")
    return Listener(f"/tasks/{part(task_id)}/stream", patience_s=patience_s, is_last=is_last)


def stream_agents(*, patience_s: float = 0.0) -> Listener:
    """Yield what changes of the newest 1,000 agents, all of them first."""
    return Listener("/agents/stream", patience_s=patience_s)


def stream_events(*, patience_s: float = 0.0) -> Listener:
    """Yield the latest 100 events of the project, then each new one."""
    return Listener("/events/stream", patience_s=patience_s)
