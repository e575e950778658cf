"""What the present worker process is: its session and the handlers it offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from agents.handlers import Context, Handler, Registered


@dataclass(frozen=True)
class Life:
    """One life of an agent inside this process."""

    session_id: UUID
    agent: str
    """The agent's name."""
    handlers: Mapping[str, Handler]
    """Capability -> handler."""


_life: Life | None = None
_done = 0


def begin(life: Life | None) -> None:
    """Set what this process is, before it takes its first task; None ends it."""
    global _life  # noqa: PLW0603 - a process has exactly one life
    _life = life


def current() -> Life | None:
    """Return this process's life; None where no agent runs (web, beat, tests)."""
    return _life


def consume(consumer: Any, *, paused: bool) -> None:
    """Have Celery's consumer take messages from its queues, or none; repeating it is harmless.

    A paused agent that went on to consume would eat the hints that others wait for.
    """
    tasks = consumer.task_consumer
    if tasks is None:  # it is about to connect anew
        return
    if paused:
        tasks.cancel()
    else:
        tasks.consume()


def counted(handlers: Mapping[str, Handler]) -> dict[str, Handler]:
    """Return the same handlers, each call of which counts in `tasks_done`."""
    return {word: _counted(found) for word, found in handlers.items()}


def tasks_done() -> int:
    """Return how many tasks this process has begun."""
    return _done


def _counted(found: Handler) -> Handler:
    if isinstance(found, Registered):
        return replace(found, function=_counted(found.function))

    def run(context: Context) -> Any:
        global _done  # noqa: PLW0603 - a process has exactly one count
        _done += 1
        return found(context)

    return run
