"""The pusher: sends tasks to agents of kind http, many at once, and asks whether they are well.

One process works at a time, any others stand by: a lock of PostgreSQL that ends with its
connection decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from functools import partial
from uuid import UUID

import psycopg

from agents import endpoints, news, sessions
from agents.endpoints import Target, may_be_sent_to
from opscore.api.threads import in_thread
from opscore.config import load_config
from opscore.logs import get_logger
from tasks import pushing
from tasks.dispatch import READY_CHANNEL
from tasks.held import Claimed
from tasks.push_request import Answer, Dialler, least_loaded

log = get_logger(__name__)

#: First half of the advisory lock "the pusher"; any constant does.
_LOCK_CLASS = 0x0B5E
#: The longest time between two looks at the database.
TICK_S = 1.0
#: How often agents are asked whether they are well, and how often they may fail to say so.
PROBE_S = 5.0
FAILURES = 3


class Pusher:
    """`await Pusher(host).run()` works until `stop()`; raises when its connection breaks."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._pid = os.getpid()
        self._stopping = asyncio.Event()
        self._look = asyncio.Event()
        self._targets: dict[UUID, Target] = {}
        self._diallers: dict[UUID, tuple[tuple[str, int], Dialler]] = {}
        self._pushes: dict[tuple[UUID, int], asyncio.Task[None]] = {}
        self._probes: dict[UUID, asyncio.Task[None]] = {}
        self._probe_at: dict[UUID, float] = {}
        self._failures: dict[UUID, int] = {}
        self._hold_until: dict[UUID, float] = {}

    def stop(self) -> None:
        """Take nothing new, finish what is open, then end; a second call does not wait."""
        if self._stopping.is_set():
            for push in self._pushes.values():
                push.cancel()
        self._stopping.set()
        self._look.set()

    async def run(self) -> None:
        """Wait for the lock, then work."""
        url = load_config().service_url("database_url")
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            if not await self._turn(connection):
                return
            await in_thread(pushing.take_over)(self._host, self._pid)
            await connection.execute(f"LISTEN {READY_CHANNEL}")
            await connection.execute(f"LISTEN {news.CHANNEL}")
            listener = asyncio.create_task(self._listen(connection))
            try:
                await self._work(listener)
            finally:
                listener.cancel()
            # Not after an error: whoever holds the lock next ends our sessions.
            await self._leave()

    async def _turn(self, connection: psycopg.AsyncConnection[tuple[bool]]) -> bool:
        while not self._stopping.is_set():
            cursor = await connection.execute("SELECT pg_try_advisory_lock(%s, 0)", [_LOCK_CLASS])
            row = await cursor.fetchone()
            if row and row[0]:
                return True
            await self._pause()
        return False

    async def _listen(self, connection: psycopg.AsyncConnection[tuple[bool]]) -> None:
        async for _ in connection.notifies():
            self._look.set()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._look.wait(), TICK_S)
        self._look.clear()

    async def _work(self, listener: asyncio.Task[None]) -> None:
        beat_at = sweep_at = 0.0
        while not self._stopping.is_set():
            if listener.done():  # the connection broke, and the lock with it
                listener.result()
            await self._read_targets()
            now = time.monotonic()
            self._probe_due(now)
            if now >= beat_at:
                beat_at = now + load_config().session_ttl_s / 3
                await self._beat()
            if now >= sweep_at:
                sweep_at = now + TICK_S
                await self._sweep()
            await self._dispatch()
            await self._pause()

    # ------------------------------------------------------------ agents
    async def _read_targets(self) -> None:
        self._targets = {target.agent_id: target for target in await in_thread(endpoints.targets)()}
        for agent_id, (key, dialler) in list(self._diallers.items()):
            target = self._targets.get(agent_id)
            busy = any(push for push in self._pushes.values() if push.get_name() == str(agent_id))
            if not busy and (target is None or key != (target.url, target.concurrency)):
                del self._diallers[agent_id]
                await dialler.close()

    def _dialler(self, target: Target) -> Dialler:
        made = self._diallers.get(target.agent_id)
        if made is None:
            made = ((target.url, target.concurrency), Dialler(target))
            self._diallers[target.agent_id] = made
        return made[1]

    async def _beat(self) -> None:
        mine = [target.session_id for target in self._targets.values() if target.session_id]
        if mine:
            await in_thread(sessions.beat)(mine)

    def _probe_due(self, now: float) -> None:
        for key, target in self._targets.items():
            if key not in self._probes and now >= self._probe_at.get(key, 0.0):
                self._probe_at[key] = now + PROBE_S
                self._probes[key] = probe = asyncio.create_task(self._probe(target))
                probe.add_done_callback(partial(self._forget_probe, key))

    def _forget_probe(self, key: UUID, _: asyncio.Task[None]) -> None:
        self._probes.pop(key, None)
        self._look.set()

    async def _probe(self, target: Target) -> None:
        wrong = await self._dialler(target).probe(target)
        await self._guarded(partial(self._note_health, target, wrong), "probe")

    def _note_health(self, target: Target, wrong: str) -> None:
        """Count failures; begin or end the agent's session by them."""
        key = target.agent_id
        if not wrong:
            self._failures.pop(key, None)
            if target.session_id is None:
                endpoints.answered(target, self._host, self._pid)
            return
        self._failures[key] = self._failures.get(key, 0) + 1
        if self._failures[key] >= FAILURES and (
            target.session_id or target.status != "unresponsive"
        ):
            endpoints.silent(target, f"{FAILURES} health checks failed; last: {wrong}"[:200])

    # ------------------------------------------------------------ tasks
    async def _dispatch(self) -> None:
        """Give each queued task to the least loaded agent, until slots or tasks run out."""
        now = time.monotonic()
        ready = [t for t in self._targets.values() if self._may_send(t, now)]
        if not ready:
            return
        running = await in_thread(pushing.due)()
        ready = [target for target in ready if target.session_id in running]
        while not self._stopping.is_set() and (target := least_loaded(running, ready)):
            task = await in_thread(pushing.claim_one)(target)
            if task is None:
                ready.remove(target)
                continue
            if target.session_id:
                running[target.session_id] += 1
            self._start(target, task)

    def _may_send(self, target: Target, now: float) -> bool:
        return may_be_sent_to(target, self._hold_until.get(target.agent_id, 0.0), now)

    def _start(self, target: Target, task: Claimed) -> None:
        key = (task.id, task.fence)
        push = asyncio.create_task(self._push(target, task), name=str(target.agent_id))
        self._pushes[key] = push
        push.add_done_callback(lambda _: self._pushes.pop(key, None))

    async def _push(self, target: Target, task: Claimed) -> None:
        started = time.monotonic()
        try:
            answer = await self._dialler(target).push(target, task)
        except asyncio.CancelledError:
            # It is over, or this process must end: whichever it is, the rows know.
            answer = Answer("lost", reason="the pusher broke the request off")
        write = log.debug if answer.kind in {"completed", "accepted"} else log.info
        write(
            "push.answered",
            task=str(task.id),
            agent=target.name,
            kind=answer.kind,
            ms=round((time.monotonic() - started) * 1000, 1),
            reason=answer.reason or answer.error.get("message", ""),
        )
        if answer.hold_s:
            self._hold_until[target.agent_id] = time.monotonic() + answer.hold_s
        await self._guarded(partial(pushing.record, target, task, answer), "push")
        if not answer.reached:
            self._probe_at.pop(target.agent_id, None)
        self._look.set()

    async def _sweep(self) -> None:
        """Break off what is over: cancelled, timed out, given back."""
        for key in await in_thread(pushing.over)(list(self._pushes)):
            if push := self._pushes.get(key):
                push.cancel()

    async def _guarded(self, verb: Callable[[], None], what: str) -> None:
        """Write to the database; what fails is left to the reconciler and the next look."""
        try:
            await in_thread(verb)()
        except Exception:
            log.exception("pusher.failed", what=what)

    async def _leave(self) -> None:
        """Finish what is open within the time to drain, then let the sessions go."""
        for probe in list(self._probes.values()):
            probe.cancel()
        if open_pushes := list(self._pushes.values()):
            _, late = await asyncio.wait(open_pushes, timeout=load_config().drain_s)
            for push in late:
                push.cancel()
            if late:
                await asyncio.wait(late)
        mine = [target.session_id for target in self._targets.values() if target.session_id]
        await in_thread(pushing.leave)(mine)
        for _, dialler in self._diallers.values():
            await dialler.close()
