"""Plain functions beside an event loop, each in a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def in_thread(function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
    """Call a function in a thread of its own; the future has what it returns or raises.

    The thread is a daemon: a function that never returns does not keep the process alive, which
    the threads of an executor pool would. The caller's context variables go with it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failure = None, None
        try:
            result = context.run(function, *args)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever awaits the future
            failure = _storable(error)
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            return

    threading.Thread(target=work, daemon=True, name=f"opscore-{function.__name__}").start()
    return future


def _storable(error: BaseException) -> BaseException:
    # A future takes no StopIteration, and SystemExit would end the loop instead of the task.
    if isinstance(error, StopIteration | SystemExit | KeyboardInterrupt):
        told = RuntimeError(f"{type(error).__name__}: {error}")
        told.__cause__ = error
        return told
    return error
