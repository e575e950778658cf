"""The thread pool of every worker: whatever becomes of a message, its slot is free again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.concurrency.thread import TaskPool
from celery.exceptions import Ignore

from agents import runtime
from opscore.logs import get_logger

log = get_logger(__name__)


class ThreadPool(TaskPool):
    """Celery's pool of threads, with every message acknowledged.

    Where the broker dies while Celery stores what a task returned, an error escapes from
    Celery's tracer. Its own pool of threads then never answers for the message, the worker
    waits for the acknowledgement for ever and takes no other message (Celery 5.7.0). What was
    lost with the message is known to the database, and repeated from there.
    """

    def on_apply(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run `target` in a thread; what escapes from it is logged, and the message let go."""
        return super().on_apply(_ending(target), *args, **kwargs)


def _ending(target: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            with runtime.at_work():
                return target(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the slot must come back
            log.warning("worker.message_dropped", error=str(error) or repr(error))
            escaped = ExceptionInfo()
            # Celery lets a message go whose task says so itself, and stores nothing for it.
            escaped.exception = Ignore()
            # What its tracer returns: failed, how, and after how long.
            return 1, escaped, 0.0

    return run


__all__ = ["ThreadPool"]
