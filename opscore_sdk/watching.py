"""Watching a run: looks at it again and again, or whenever something of it has changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from opscore_sdk.asking import AGAIN, Talk, ask, part
from opscore_sdk.calls.streams import stream_run
from opscore_sdk.deadline import Deadline
from opscore_sdk.errors import ApiError, OpsCoreError
from opscore_sdk.transport import AsyncLine, SyncLine
from opscore_sdk.wire import Run

#: So near to its end a time limit is kept by looking: a stream may be silent for that long.
_NEAR_S = 20.0


class Watch:
    """Looks at a run now and every `every_s` seconds."""

    def __init__(
        self, run_id: str, *, every_s: float, timeout_s: float | None, patience_s: float
    ) -> None:
        self._run_id, self._every_s = run_id, every_s
        self._patience_s = patience_s
        self._clock = Deadline(timeout_s)
        self._looked = False
        self._has_inner = False

    def next(self) -> Talk[Run]:
        """Return the run as it is at the next look. Raises WaitTimeoutError."""
        if self._looked:
            yield from self._until_next()
        self._looked = True
        patience_s = min(self._patience_s, self._clock.left_s)
        answer = yield from ask("GET", f"/runs/{part(self._run_id)}", patience_s=patience_s)
        seen = Run.read(answer)
        self._has_inner = any(task.starts_runs and not task.has_ended for task in seen.tasks)
        return seen

    def close(self) -> Talk[None]:
        """Let go of what is open."""
        yield from ()

    def _until_next(self) -> Talk[None]:
        yield from self._clock.pause(self._every_s, self._run_id)


class Follow(Watch):
    """Looks at a run now and whenever its stream says that something has changed.

    Where the server cannot stream, near the end of a time limit, and while tasks of the run are
    runs of their own, of which its stream says nothing, it looks every `every_s` seconds.
    """

    def __init__(
        self, run_id: str, *, every_s: float, timeout_s: float | None, patience_s: float
    ) -> None:
        super().__init__(run_id, every_s=every_s, timeout_s=timeout_s, patience_s=patience_s)
        self._stream = stream_run(run_id, patience_s=patience_s)
        self._streams = True

    def close(self) -> Talk[None]:
        """Hang up."""
        yield from self._stream.close()

    def _until_next(self) -> Talk[None]:
        while self._streams and not self._has_inner and self._clock.left_s > _NEAR_S:
            try:
                change = yield from self._stream.next()
            except OpsCoreError as error:
                # Whether the platform is away or the run is gone, the look itself will say.
                self._streams = not isinstance(error, ApiError) or error.status in AGAIN
                break
            if change is not None:
                return
        yield from self.close()
        yield from super()._until_next()


class SyncWatching(SyncLine):
    """What a blocking client can see of a run that goes on."""

    def watch(
        self,
        run_id: str,
        *,
        every_s: float = 0.5,
        timeout_s: float | None = None,
        patience_s: float = 0.0,
    ) -> Iterator[Run]:
        """Yield the run now and every `every_s` seconds, until it has ended (the last one).

        For `patience_s` seconds at a time it stays, although the platform does not answer. Raises
        WaitTimeoutError after `timeout_s`; the run goes on.
        """
        look = Watch(run_id, every_s=every_s, timeout_s=timeout_s, patience_s=patience_s)
        return self._seen(look)

    def follow(
        self,
        run_id: str,
        *,
        every_s: float = 0.5,
        timeout_s: float | None = None,
        patience_s: float = 0.0,
    ) -> Iterator[Run]:
        """Yield the run now and whenever something of it has changed, until it has ended.

        It listens to the run's stream; where there is none, and while tasks of it are runs of
        their own, it looks as `watch` does.
        """
        look = Follow(run_id, every_s=every_s, timeout_s=timeout_s, patience_s=patience_s)
        return self._seen(look)

    def _seen(self, look: Watch) -> Iterator[Run]:
        try:
            seen = self.hold(look.next())
            yield seen
            while not seen.has_ended:
                seen = self.hold(look.next())
                yield seen
        finally:
            self.hold(look.close())


class AsyncWatching(AsyncLine):
    """The same for an event loop."""

    def watch(
        self,
        run_id: str,
        *,
        every_s: float = 0.5,
        timeout_s: float | None = None,
        patience_s: float = 0.0,
    ) -> AsyncIterator[Run]:
        """Yield the run as `Client.watch` does."""
        look = Watch(run_id, every_s=every_s, timeout_s=timeout_s, patience_s=patience_s)
        return self._seen(look)

    def follow(
        self,
        run_id: str,
        *,
        every_s: float = 0.5,
        timeout_s: float | None = None,
        patience_s: float = 0.0,
    ) -> AsyncIterator[Run]:
        """Yield the run as `Client.follow` does."""
        look = Follow(run_id, every_s=every_s, timeout_s=timeout_s, patience_s=patience_s)
        return self._seen(look)

    async def _seen(self, look: Watch) -> AsyncIterator[Run]:
        try:
            seen = await self.hold(look.next())
            yield seen
            while not seen.has_ended:
                seen = await self.hold(look.next())
                yield seen
        finally:
            await self.hold(look.close())
