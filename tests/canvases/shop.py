"""Celery tasks as users write them; the tests with real workers start agents that do them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Task, shared_task

from workflows.canvases import durable


@durable
@shared_task(name="shop.add")
def add(one: Any, two: Any = 1) -> Any:
    """Add two numbers, texts or lists."""
    return one + two


@durable
@shared_task(name="shop.total")
def total(numbers: list[int]) -> int:
    """Add many."""
    return sum(numbers)


@durable
@shared_task(name="shop.show")
def show(*args: Any, **kwargs: Any) -> list[Any]:
    """Give back how it was called."""
    return [list(args), kwargs]


@durable
@shared_task(name="shop.nothing")
def nothing(*args: Any) -> None:
    """Return None."""


@durable
@shared_task(name="shop.mark")
def mark(value: Any, file: str, gate: str = "") -> Any:
    """Note in a file that it ran, wait for its gate, and pass the value on."""
    with Path(file).open("a") as lines:
        lines.write(f"{value}\n")
    while gate and not Path(gate).exists():
        time.sleep(0.01)
    return value


@durable
@shared_task(name="shop.kill")
def kill() -> None:
    """Kill the process that runs it."""
    os.kill(os.getpid(), signal.SIGKILL)


@durable
@shared_task(name="shop.refuse")
def refuse(value: Any = None) -> None:
    """Fail as a plain Celery task fails."""
    raise LookupError("out of stock")


@durable
@shared_task(
    name="shop.shaky",
    bind=True,
    autoretry_for=(ConnectionError,),
    retry_kwargs={"max_retries": 2, "countdown": 0},
)
def shaky(self: Task[Any, Any], good_from: int, error: str = "ConnectionError") -> list[Any]:
    """Fail until a retry of this number."""
    if self.request.retries < good_from:
        raise {"ConnectionError": ConnectionError, "KeyError": KeyError}[error]("too early")
    return [self.request.retries, self.request.id]


@durable
@shared_task(name="shop.asks", bind=True, default_retry_delay=0, max_retries=1)
def asks(self: Task[Any, Any], good_from: int) -> int:
    """Ask for its retry by itself."""
    if self.request.retries < good_from:
        raise self.retry(exc=OSError("not yet"))
    return int(self.request.retries)


class Counted(Task[Any, Any]):
    """A base class as teams have it: something around each call."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return ["around", super().__call__(*args, **kwargs)]


@durable
@shared_task(name="shop.counted", base=Counted)
def counted(value: int) -> int:
    """Be called through the base class."""
    return value
