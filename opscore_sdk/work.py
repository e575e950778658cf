"""One claimed task on its way: the function runs, its words are sent, its end is reported."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from opscore_sdk import calls
from opscore_sdk.asking import Talk
from opscore_sdk.context import AsyncContext, Context
from opscore_sdk.errors import (
    ApiError,
    ConflictError,
    NotFoundError,
    OpsCoreError,
    ServerError,
    TaskCancelledError,
    TaskError,
    UnreachableError,
    is_passing,
)
from opscore_sdk.mail import Persist
from opscore_sdk.outbox import Outbox, sendable
from opscore_sdk.protocol import ClaimedTask
from opscore_sdk.threads import in_thread

if TYPE_CHECKING:
    from opscore_sdk.agent import Handler
    from opscore_sdk.client import AsyncClient

log = logging.getLogger("opscore_sdk")
T = TypeVar("T")

#: Seconds between two looks at what a function said.
_FLUSH_S = 0.3
_MAX_MESSAGE = 4000
_MAX_TYPE = 200
_CANCELLED = {"type": "cancelled", "message": "stopped: not wanted any more", "retryable": False}


class Work:
    """An attempt that this process holds."""

    doing: asyncio.Task[None]

    def __init__(
        self,
        task: ClaimedTask,
        handlers: Mapping[str, Handler],
        client: AsyncClient,
        persist: Persist,
    ) -> None:
        self.task = task
        self._handler = handlers.get(task.capability)
        self._client, self._persist = client, persist
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._talking = asyncio.Lock()
        self._outbox = Outbox(self._tell)
        self._function: asyncio.Future[Any] | None = None
        self._given_back = False

    def start(self, done: Callable[[Work], None]) -> None:
        """Begin; `done` is called when the end has been reported, or dropped."""
        self.doing = asyncio.create_task(self._do())
        self.doing.add_done_callback(lambda _: done(self))

    def cancel(self) -> None:
        """Tell the function that its work is not wanted any more."""
        if self._outbox.cancelled.is_set():
            return
        log.info("task %s is not wanted any more", self.task.id)
        self._outbox.cancelled.set()
        if self._function is not None and self._handler is not None and self._handler.is_async:
            self._function.cancel()

    def cut_off(self) -> None:
        """Do the same because the process ends: the task is given back, not reported."""
        self._given_back = True
        self.cancel()

    def _tell(self) -> None:
        # A thread that outlived its loop has nobody to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._news.set)

    async def _do(self) -> None:
        sending = asyncio.create_task(self._send_for_ever())
        try:
            outcome = await self._outcome()
            if not self._given_back:
                # What is on its way is heard out: broken off, its lines might be sent twice.
                async with self._talking:
                    sending.cancel()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        if self._given_back and self._outbox.cancelled.is_set() and outcome is None:
            return
        await self._send(self._persist)
        await self._report(outcome)

    async def _outcome(self) -> tuple[Any] | Mapping[str, Any] | None:
        """Return the result as (result,), an error, or None for work that was stopped."""
        try:
            return (await self._called(),)
        except (TaskCancelledError, asyncio.CancelledError):
            if not self._outbox.cancelled.is_set():
                return {**_CANCELLED, "message": "the function cancelled itself"}
            return None
        except TaskError as error:
            return _sendable(error.as_dict())
        except Exception as error:
            log.warning("task %s failed", self.task.id, exc_info=True)
            return _told(error)

    async def _called(self) -> Any:
        handler, inputs = self._handler, dict(self.task.inputs)
        if handler is None:
            message = f"this agent has no function for {self.task.capability!r}"
            raise TaskError("no_function", message)
        if handler.is_async:
            more = [AsyncContext(self.task, self._outbox, self._client)]
            coroutine = handler.function(inputs, *more[: handler.wants_context])
            self._function = asyncio.create_task(_guarded(coroutine))
        else:
            given = [Context(self.task, self._outbox, self._hold)]
            self._function = in_thread(handler.function, inputs, *given[: handler.wants_context])
        return await self._function

    def _hold(self, talk: Talk[T]) -> T:
        """Hold a talk from the function's thread, over the agent's own connection."""
        return asyncio.run_coroutine_threadsafe(self._client.hold(talk), self._loop).result()

    # What it says meanwhile

    async def _send_for_ever(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            async with self._talking:
                await self._send(self._try_once)
            await asyncio.sleep(_FLUSH_S)

    async def _send(self, hold: Persist) -> None:
        """Send what the function said; what cannot be sent now stays for the next time."""
        try:
            await self._send_progress(hold)
            while (taken := self._outbox.take_lines()) is not None:
                await self._send_lines(hold, *taken)
        except (ConflictError, NotFoundError):
            self.cancel()
        except (ApiError, UnreachableError) as error:
            if is_passing(error):
                self._tell()
            else:
                log.warning("task %s: its progress was refused: %s", self.task.id, error)

    async def _send_lines(self, hold: Persist, stream: str, lines: list[str]) -> None:
        task_id, fence = self.task.id, self.task.fence
        try:
            await hold(lambda: calls.executor.add_logs(task_id, fence, lines, stream=stream))
        except (UnreachableError, asyncio.CancelledError):
            self._outbox.put_back(stream, lines)
            raise
        except ApiError as error:
            if is_passing(error):
                self._outbox.put_back(stream, lines)
            if is_passing(error) or isinstance(error, ConflictError | NotFoundError):
                raise
            log.warning("task %s: lines of its log were refused: %s", self.task.id, error)

    async def _send_progress(self, hold: Persist) -> None:
        told = self._outbox.take_progress()
        if told is None:
            return
        (fraction, message), task_id, fence = told, self.task.id, self.task.fence
        try:
            await hold(
                lambda: calls.executor.set_progress(
                    task_id, fence, fraction=fraction, message=message
                )
            )
        except (UnreachableError, ServerError, asyncio.CancelledError):
            self._outbox.put_back_progress(told)
            raise

    async def _try_once(self, talk: Callable[[], Talk[T]]) -> T:
        return await self._client.hold(talk())

    # Its end

    async def _report(self, outcome: tuple[Any] | Mapping[str, Any] | None) -> None:
        try:
            await self._persist(lambda: self._reporting(outcome))
        except (ConflictError, NotFoundError):
            # Recorded before, cancelled, or given to somebody else: nothing of it counts.
            log.info("task %s: the report was refused, the work is dropped", self.task.id)
        except ApiError as error:
            await self._report_refused(error)

    async def _report_refused(self, error: ApiError) -> None:
        """Report instead that the result was refused: too large, or no JSON that is allowed."""
        told = _sendable({"type": "result", "message": str(error), "retryable": False})
        try:
            await self._persist(lambda: self._reporting(told))
        except OpsCoreError as again:
            log.warning("task %s could not be reported: %s", self.task.id, again)

    def _reporting(self, outcome: tuple[Any] | Mapping[str, Any] | None) -> Talk[None]:
        task_id, fence = self.task.id, self.task.fence
        if isinstance(outcome, tuple):
            try:
                json.dumps(outcome[0], allow_nan=False)
            except (TypeError, ValueError, RecursionError) as error:
                outcome = {"type": "result", "message": f"not JSON: {error}", "retryable": False}
            else:
                return calls.executor.report_completed(task_id, fence, outcome[0])
        # Work that was stopped is reported too: refused, but the platform knows it has let go.
        return calls.executor.report_failed(task_id, fence, outcome or _CANCELLED)


async def _guarded(coroutine: Awaitable[Any]) -> Any:
    """Await a function; its `sys.exit()` fails the task, and does not end the agent."""
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _told(error: Exception) -> dict[str, Any]:
    kind = type(error)
    module = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    message = str(error) or kind.__name__
    return _sendable(
        {"type": f"{module}{kind.__qualname__}", "message": message, "retryable": True}
    )


def _sendable(error: Mapping[str, Any]) -> dict[str, Any]:
    """Return an error as the platform takes it, whatever letters its message holds."""
    return {
        **error,
        "type": sendable(str(error["type"]), _MAX_TYPE) or "error",
        "message": sendable(str(error["message"]), _MAX_MESSAGE),
    }
