"""What an agent's function gets beside its inputs: who it is, and a way to talk while it works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from opscore_sdk import calls
from opscore_sdk.asking import Talk
from opscore_sdk.errors import (
    ConflictError,
    NotFoundError,
    TaskCancelledError,
    VersionConflictError,
)
from opscore_sdk.outbox import Outbox
from opscore_sdk.protocol import ClaimedTask, Entry
from opscore_sdk.transport import AsyncLine

T = TypeVar("T")


class Hold(Protocol):
    """Holds a talk from a function's own thread and returns what came of it."""

    def __call__(self, talk: Talk[T], /) -> T: ...


class _Attempt:
    """One attempt at a task, as its function sees it."""

    def __init__(self, task: ClaimedTask, outbox: Outbox) -> None:
        self.task = task
        """All that the platform said about the attempt."""
        self._outbox = outbox

    @property
    def task_id(self) -> str:
        """Id of the task; the same in API, logs and traces."""
        return self.task.id

    @property
    def run_id(self) -> str:
        """Id of the run that the task belongs to."""
        return self.task.run_id

    @property
    def attempt(self) -> int:
        """Which try this is, from 1."""
        return self.task.attempt

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt: hand it to outside systems, so that nothing happens twice."""
        return self.task.idempotency_key

    @property
    def traceparent(self) -> str:
        """W3C trace context to hand on to what the function calls."""
        return self.task.traceparent

    @property
    def trace_id(self) -> str:
        """The trace that the attempt belongs to: one for each run."""
        pieces = self.task.traceparent.split("-")
        return pieces[1] if len(pieces) >= 4 else ""

    @property
    def cancelled(self) -> bool:
        """Whether the work is not wanted any more: cancelled, timed out or taken away."""
        return self._outbox.cancelled.is_set()

    def check(self) -> None:
        """Raise TaskCancelledError when the work is not wanted any more."""
        if self.cancelled:
            raise TaskCancelledError(f"The task {self.task.id} is not wanted any more.")

    def log(self, text: str, *, stream: str = "log") -> None:
        """Add lines to the task's log; they are sent in the background, a few times a second.

        `stream`: log, stdout or stderr.
        """
        self._outbox.log(text, stream)

    def progress(self, fraction: float | None = None, message: str = "") -> None:
        """Say how far the work is, 0 to 1 (None: unknown), and with what; the latest one counts.

        Raises ValueError for a fraction outside of 0 to 1.
        """
        if fraction is not None and not 0 <= fraction <= 1:
            raise ValueError(f"progress is a fraction from 0 to 1, not {fraction!r}")
        self._outbox.progress(fraction, message)

    def _sending(
        self,
        body: Any,
        agent: str | None,
        capability: str | None,
        topic: str,
        ttl_s: float | None,
    ) -> Talk[str]:
        talk = calls.runs.send_message(
            self.run_id,
            body,
            agent=agent,
            capability=capability,
            topic=topic,
            ttl_s=ttl_s,
            attempt=self.task.proof,
        )
        return _while_mine(talk)


class Context(_Attempt):
    """What a plain function gets; its methods may block, any thread may call them."""

    def __init__(self, task: ClaimedTask, outbox: Outbox, hold: Hold) -> None:
        super().__init__(task, outbox)
        self._hold = hold
        self.shared = Shared(task.run_id, hold, task.proof)
        """The keys that all agents of the run share."""

    def wait_cancelled(self, timeout_s: float) -> bool:
        """Sleep so long, or until the work is not wanted any more; return whether it is not."""
        return self._outbox.cancelled.wait(timeout_s)

    def send(
        self,
        body: Any,
        *,
        agent: str | None = None,
        capability: str | None = None,
        topic: str = "",
        ttl_s: float | None = None,
    ) -> str:
        """Send any JSON to one agent, or to whoever has the capability; return the message's id."""
        return self._hold(self._sending(body, agent, capability, topic, ttl_s))


class AsyncContext(_Attempt):
    """What an `async` function gets; cancellation arrives in it as asyncio.CancelledError."""

    def __init__(self, task: ClaimedTask, outbox: Outbox, line: AsyncLine) -> None:
        super().__init__(task, outbox)
        self._line = line
        self.shared = AsyncShared(task.run_id, line, task.proof)
        """The keys that all agents of the run share."""

    async def send(
        self,
        body: Any,
        *,
        agent: str | None = None,
        capability: str | None = None,
        topic: str = "",
        ttl_s: float | None = None,
    ) -> str:
        """Send a message as `Context.send` does."""
        return await self._line.hold(self._sending(body, agent, capability, topic, ttl_s))


class Shared:
    """The durable, versioned keys of one run. Values are any JSON.

    `attempt` is the `proof` of the attempt that writes. Writes raise TaskCancelledError when it
    is over: nothing that it does counts any more.
    """

    def __init__(self, run_id: str, hold: Hold, attempt: str | None = None) -> None:
        self._run_id, self._hold, self._attempt = run_id, hold, attempt

    def get(self, key: str) -> Entry | None:
        """Return an entry with its version; None when there is none."""
        return self._hold(_found(self._run_id, key))

    def put(self, key: str, value: Any, *, if_version: int | None = None) -> Entry:
        """Write an entry; `if_version`: only over this version, 0 only when there is none.

        Raises VersionConflictError when somebody was faster: read it again, then decide.
        """
        return self._hold(_put(self._run_id, key, value, if_version, self._attempt))

    def delete(self, key: str, *, if_version: int | None = None) -> None:
        """Delete an entry; NotFoundError when there is none, else as `put`."""
        self._hold(_delete(self._run_id, key, if_version, self._attempt))

    def all(self) -> dict[str, Any]:
        """Return the values of all keys."""
        return self._hold(_values(self._run_id))

    def change(self, key: str, change: Callable[[Any], Any]) -> Entry:
        """Write `change(value)` over the present value, again until nobody was faster.

        `change` gets None when there is no entry; it may be called several times.
        """
        return self._hold(_changed(self._run_id, key, change, self._attempt))


class AsyncShared:
    """The same to be awaited."""

    def __init__(self, run_id: str, line: AsyncLine, attempt: str | None = None) -> None:
        self._run_id, self._line, self._attempt = run_id, line, attempt

    async def get(self, key: str) -> Entry | None:
        """Return an entry as `Shared.get` does."""
        return await self._line.hold(_found(self._run_id, key))

    async def put(self, key: str, value: Any, *, if_version: int | None = None) -> Entry:
        """Write an entry as `Shared.put` does."""
        return await self._line.hold(_put(self._run_id, key, value, if_version, self._attempt))

    async def delete(self, key: str, *, if_version: int | None = None) -> None:
        """Delete an entry as `Shared.delete` does."""
        await self._line.hold(_delete(self._run_id, key, if_version, self._attempt))

    async def all(self) -> dict[str, Any]:
        """Return the values of all keys."""
        return await self._line.hold(_values(self._run_id))

    async def change(self, key: str, change: Callable[[Any], Any]) -> Entry:
        """Write `change(value)` as `Shared.change` does."""
        return await self._line.hold(_changed(self._run_id, key, change, self._attempt))


def _found(run_id: str, key: str) -> Talk[Entry | None]:
    try:
        return (yield from calls.runs.get_shared(run_id, key))
    except NotFoundError:
        return None


def _values(run_id: str) -> Talk[dict[str, Any]]:
    entries = yield from calls.runs.shared(run_id)
    return {entry.key: entry.value for entry in entries}


def _put(
    run_id: str, key: str, value: Any, if_version: int | None, attempt: str | None
) -> Talk[Entry]:
    talk = calls.runs.put_shared(run_id, key, value, if_version=if_version, attempt=attempt)
    return _while_mine(talk)


def _delete(run_id: str, key: str, if_version: int | None, attempt: str | None) -> Talk[None]:
    return _while_mine(
        calls.runs.delete_shared(run_id, key, if_version=if_version, attempt=attempt)
    )


def _changed(
    run_id: str, key: str, change: Callable[[Any], Any], attempt: str | None
) -> Talk[Entry]:
    while True:
        old = yield from _found(run_id, key)
        value = change(old.value if old else None)
        try:
            return (yield from _put(run_id, key, value, old.version if old else 0, attempt))
        except VersionConflictError:
            continue


def _while_mine(talk: Talk[T]) -> Talk[T]:
    """Hold a talk that writes for an attempt. Raises TaskCancelledError when that is over."""
    try:
        return (yield from talk)
    except ConflictError as error:
        if error.code == "attempt_over":
            raise TaskCancelledError(str(error)) from error
        raise
