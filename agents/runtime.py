"""What the present worker process is: its session and the handlers it offers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from agents.handlers import Context, Handler, Registered
from agents.hearing import Pulse


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
_tells: tuple[int, Callable[[], None]] | None = None
_taken = 0
_working = 0
_counts = threading.Lock()


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
    elif not all(map(tasks.consuming_from, list(tasks.queues))):
        # RabbitMQ drops the queue of one agent that nobody consumes for long.
        tasks.declare()
        tasks.consume()


def hear() -> None:
    """Take note that a message was taken."""
    global _taken  # noqa: PLW0603 - a process has exactly one count
    with _counts:
        _taken += 1


@contextmanager
def at_work() -> Iterator[None]:
    """Count the message that is worked on inside."""
    global _working  # noqa: PLW0603 - a process has exactly one count
    hear()
    with _counts:
        _working += 1
    try:
        yield
    finally:
        with _counts:
            _working -= 1


def pulse(*, connected: bool = True) -> Pulse:
    """Return what this process says of itself with each beat."""
    return Pulse(_taken, at_work=_working > 0, connected=connected)


def counted(handlers: Mapping[str, Handler]) -> dict[str, Handler]:
    """Return the same handlers, each call of which counts in `tasks_done`."""
    return {word: _counted(found) for word, found in handlers.items()}


def tasks_done() -> int:
    """Return how many tasks this process has begun."""
    return _done


def tell_after(tasks: int, tell: Callable[[], None]) -> None:
    """Have `tell` called when this process begins that task, in the thread that does it."""
    global _tells  # noqa: PLW0603 - a process has exactly one count
    _tells = (tasks, tell)


def _begin_task() -> None:
    global _done  # noqa: PLW0603 - a process has exactly one count
    _done += 1
    if _tells is not None and _done == _tells[0]:
        _tells[1]()


def _counted(found: Handler) -> Handler:
    if isinstance(found, Registered):
        return replace(found, function=_counted(found.function))

    def run(context: Context) -> Any:
        _begin_task()
        return found(context)

    return run
