"""The threads in which a web process runs blocking views, each with one warm connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async

from opscore.database import release

P = ParamSpec("P")
T = TypeVar("T")

#: As many database connections as one web process may hold. Django's own ASGI handler makes
#: a thread for each request, and with it a new connection (3 ms). More threads than these only
#: wait for each other: with 8, GET p99 was 63 ms instead of 49, a submit's 211 instead of 146.
THREADS = 4
_pool = ThreadPoolExecutor(THREADS, thread_name_prefix="api")
#: For what must answer also when all threads of the API are busy: whether the platform is well.
_apart = ThreadPoolExecutor(1, thread_name_prefix="api-apart")


def in_thread(function: Callable[P, T], *, apart: bool = False) -> Callable[P, Awaitable[T]]:
    """Return `function` as a coroutine function that runs in one of the API's threads.

    The caller's context variables go with it; a broken connection is dropped afterwards.
    `apart`: in a thread that no other request can keep busy.
    """

    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        finally:
            release()

    return sync_to_async(run, thread_sensitive=False, executor=_apart if apart else _pool)
