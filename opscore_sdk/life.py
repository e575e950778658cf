"""One run of an agent's program: its session, heartbeats, claims, messages, and its way out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from opscore_sdk import calls
from opscore_sdk.asking import Talk, wait_s
from opscore_sdk.errors import (
    AgentStoppedError,
    ApiError,
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    OpsCoreError,
    ServerError,
    UnreachableError,
    is_passing,
)
from opscore_sdk.mail import Mail
from opscore_sdk.protocol import StartedSession
from opscore_sdk.stall import StallWatch
from opscore_sdk.work import Work

if TYPE_CHECKING:
    from opscore_sdk.agent import Agent
    from opscore_sdk.client import AsyncClient

log = logging.getLogger("opscore_sdk")
T = TypeVar("T")

#: Seconds for a session that is just beginning when the agent stops: it must be known to be ended.
_MERCY_S = 2.0
#: Seconds that cut off functions get to notice it.
_LAST_WORDS_S = 2.0
#: The longest pause that is made because the platform asks for it.
_LONGEST_S = 30.0
#: A loop that stands still for less is busy, not held.
_STALL_S = 0.5
#: A claim that waits longer than this would be cut by some proxies.
_CLAIM_WAIT_S = 30.0


class Life:
    """An agent that lives: made, lived once, thrown away."""

    def __init__(
        self, agent: Agent, name: str, capabilities: Sequence[str], client: AsyncClient
    ) -> None:
        self._agent, self._name, self._capabilities = agent, name, list(capabilities)
        self._client, self._slots = client, agent.slots
        self._mail = Mail(agent.listeners, client, self._persist)
        self._works: dict[str, Work] = {}
        self._started: StartedSession | None = None
        self._renewing = asyncio.Lock()
        self._claiming = False
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()
        self._free = asyncio.Event()

    async def live(self, *, catch_signals: bool) -> None:
        """Do tasks until `stop`, a signal, or an error that only a person can mend."""
        caught = self._catch_signals() if catch_signals else []
        beats: asyncio.Task[None] | None = None
        try:
            if not await self._unless_stopped(self._join(), mercy_s=_MERCY_S):
                return
            beats = asyncio.create_task(self._beat_for_ever())
            watch = StallWatch(self._name, max(self._heartbeat_s / 2, _STALL_S))
            loops: list[Coroutine[Any, Any, None]] = []
            if self._capabilities:
                loops.append(self._claim_for_ever())
            if self._agent.listeners:
                loops.append(self._mail.take_for_ever(self._session, self._renew))
            with watch:
                await self._unless_stopped(*loops, others=[beats])
        except AuthenticationError:
            # Nothing that the functions do will be accepted.
            self._hurried.set()
            raise
        finally:
            await self._leave(beats)
            for number in caught:
                self._loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Take nothing new and finish; a second call finishes at once. Any thread may call it."""
        self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._stopping.is_set():
            self._hurried.set()
        log.info("%s stops: it finishes %d functions", self._name, len(self._doing()))
        self._stopping.set()

    def _catch_signals(self) -> list[int]:
        caught = [signal.SIGTERM, signal.SIGINT]
        try:
            for number in caught:
                self._loop.add_signal_handler(number, self._stop)
        except (NotImplementedError, RuntimeError, ValueError):
            # Not the main thread, or a system without signals: `stop` is the way then.
            return []
        return [int(number) for number in caught]

    async def _unless_stopped(
        self,
        *doing: Coroutine[Any, Any, Any],
        others: Sequence[asyncio.Task[Any]] = (),
        mercy_s: float = 0.0,
    ) -> bool:
        """Run coroutines until the agent stops; raise what one raises. False: it was stopped.

        They get `mercy_s` to come to their end then.
        """
        tasks = [asyncio.create_task(one) for one in doing]
        stop = asyncio.create_task(self._stopping.wait())
        try:
            waited = {*tasks, *others, stop}
            while waited - {stop}:
                done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if stop in done:
                    await asyncio.wait(tasks, timeout=mercy_s)
                    return False
            return True
        finally:
            for task in (*tasks, stop):
                task.cancel()
            await asyncio.gather(*tasks, stop, return_exceptions=True)

    # Joining and leaving

    async def _join(self) -> None:
        refused: ApiError | None = None
        try:
            await self._persist(self._register)
        except (ForbiddenError, ConflictError) as error:
            # A key that may only execute, or an agent that the platform itself registered.
            refused = error
        try:
            await self._begin()
        except NotFoundError as error:
            raise refused or error from error
        log.info("%s is there for %s", self._name, ", ".join(self._capabilities) or "messages")

    def _register(self) -> Talk[Any]:
        agent = self._agent
        return calls.agents.register_agent(
            self._name,
            agent.kind,
            capabilities=self._capabilities,
            labels=agent.labels,
            # For programs that a supervisor starts the host's file says it.
            concurrency=None if agent.kind == "process" else self._slots,
        )

    async def _begin(self) -> None:
        # One key for all tries: a try whose answer got lost must not begin a second session.
        once = str(uuid4())
        self._started = await self._persist(
            lambda: calls.executor.begin_session(
                self._name, host=socket.gethostname()[:100], pid=os.getpid(), idempotency_key=once
            )
        )

    async def _renew(self, old: str) -> None:
        """Begin a new session after one that has ended; what was done for it is not wanted."""
        async with self._renewing:
            if self._session() != old:
                return
            log.warning("%s lost its session; it begins a new one", self._name)
            for work in self._works.values():
                work.cancel()
            try:
                await self._begin()
            except (ConflictError, NotFoundError) as error:
                raise AgentStoppedError(str(error)) from error

    def _session(self) -> str:
        assert self._started is not None  # noqa: S101 - nothing asks before `_join`
        return self._started.session_id

    @property
    def _heartbeat_s(self) -> float:
        assert self._started is not None  # noqa: S101 - nothing asks before `_join`
        return self._started.heartbeat_s

    async def _leave(self, beats: asyncio.Task[None] | None) -> None:
        if self._doing():
            await self._finish()
        if beats is not None:
            beats.cancel()
            await asyncio.gather(beats, return_exceptions=True)
        if self._started is not None:
            with contextlib.suppress(OpsCoreError):
                await self._client.hold(calls.executor.end_session(self._session()))
            log.info("%s has signed off", self._name)

    async def _finish(self) -> None:
        """Let the functions finish; cut those off that take longer than the grace time."""
        hurried = asyncio.create_task(self._hurried.wait())
        ended = asyncio.create_task(self._all_ended())
        wanted = {hurried, ended}
        await asyncio.wait(wanted, timeout=self._agent.grace_s, return_when=asyncio.FIRST_COMPLETED)
        for work in list(self._works.values()):
            work.cut_off()
        if self._mail.delivery is not None:
            self._mail.delivery.cancel()
        if self._doing():
            await asyncio.wait({ended}, timeout=_LAST_WORDS_S)
        for waiting in wanted:
            waiting.cancel()

    async def _all_ended(self) -> None:
        while doing := self._doing():
            await asyncio.wait(doing)

    def _doing(self) -> set[asyncio.Task[None]]:
        """Return what functions are at, and their words and ends that are not told yet."""
        delivery = self._mail.delivery
        mail = {delivery} if delivery is not None and not delivery.done() else set()
        return mail.union(work.doing for work in self._works.values())

    # Heartbeats

    async def _beat_for_ever(self) -> None:
        while True:
            # Twice as often as the platform asks: one beat may get lost, and a cancel comes soon.
            await asyncio.sleep(self._heartbeat_s / 2)
            # A claim that waits is a sign of life by itself.
            if self._works or not self._claiming:
                await self._beat()

    async def _beat(self) -> None:
        session = self._session()
        held = [(work.task.id, work.task.fence) for work in self._works.values()]
        # The session lives three times as long: after one that hangs there is time for others.
        beat = calls.executor.heartbeat(session, held, timeout_s=self._heartbeat_s)
        try:
            unwanted = await self._client.hold(beat)
        except ConflictError:
            await self._renew(session)
        except AuthenticationError:
            # The agent may be stopping: then nobody but `_finish` hears of it.
            self._hurried.set()
            raise
        except (UnreachableError, ServerError) as error:
            log.warning("%s: no heartbeat: %s", self._name, error)
        else:
            for task_id in unwanted:
                if task_id in self._works:
                    self._works[task_id].cancel()

    # Claims

    async def _claim_for_ever(self) -> None:
        while True:
            room = self._slots - len(self._works)
            if room <= 0:
                self._free.clear()
                await self._free.wait()
                continue
            await self._claim(room)

    async def _claim(self, room: int) -> None:
        assert self._started is not None  # noqa: S101 - begun before
        session = self._session()
        longest = min(self._started.claim_wait_max_s, _CLAIM_WAIT_S)
        self._claiming = True
        try:
            claimed = await self._persist(
                lambda: calls.executor.claim(session, limit=min(room, 100), wait_s=longest)
            )
        except ConflictError:
            return await self._renew(session)
        finally:
            self._claiming = False
        for task in claimed:
            work = Work(task, self._agent.tasks, self._client, self._persist)
            self._works[task.id] = work
            work.start(self._done)
        return None

    def _done(self, work: Work) -> None:
        # After a lost session the same task may be here again, under another fence.
        if self._works.get(work.task.id) is work:
            del self._works[work.task.id]
        self._free.set()

    async def _persist(self, talk: Callable[[], Talk[T]]) -> T:
        """Hold a talk, again and again while the platform is away. Raises what it refuses."""
        number = 0
        while True:
            number += 1
            try:
                return await self._client.hold(talk())
            except (ApiError, UnreachableError) as error:
                if not is_passing(error):
                    raise
                if number in (2, 10) or number % 50 == 0:
                    log.warning("%s waits for the platform: %s", self._name, error)
                asked_s = getattr(error, "retry_after_s", 0.0)
            await asyncio.sleep(max(wait_s(number), min(asked_s, _LONGEST_S)))
