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

from agents import endpoints, news, queues, sessions
from agents.endpoints import Target, may_be_sent_to
from opscore.api.threads import in_thread
from opscore.config import load_config
from opscore.errors import ConflictError
from opscore.logs import get_logger
from tasks import pushing
from tasks.dispatch import READY_CHANNEL
from tasks.held import Claimed
from tasks.push_request import SILENT, Answer, Dialler, least_loaded

log = get_logger(__name__)

#: First half of the advisory lock "the pusher"; any constant does.
LOCK_CLASS = 0x0B5E
#: The longest time between two looks at the database.
TICK_S = 1.0
#: The shortest time between two looks because of announcements: they come in bursts.
ROUND_S = 0.02
#: How often agents are asked whether they are well, and how often they may fail to say so.
PROBE_S = 5.0
FAILURES = 3
#: How often an answer is tried to be written, with a growing pause in between.
RECORD_TRIES = 6


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
        # Answered with 202: a callback follows.
        self._accepted: set[tuple[UUID, int]] = set()
        self._heard_at = 0.0
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
            self._accepted = await in_thread(pushing.take_over)(self._host, self._pid)
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
            cursor = await connection.execute("SELECT pg_try_advisory_lock(%s, 0)", [LOCK_CLASS])
            row = await cursor.fetchone()
            if row and row[0]:
                return True
            await self._pause()
        return False

    async def _listen(self, connection: psycopg.AsyncConnection[tuple[bool]]) -> None:
        async for notify in connection.notifies():
            if notify.channel == news.CHANNEL or self._is_offered(notify.payload):
                self._look_soon()

    def _is_offered(self, word: str) -> bool:
        return any(
            word in target.capabilities or word == queues.own(target.agent_id)
            for target in self._targets.values()
        )

    def _look_soon(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._heard_at <= now:  # else a look comes anyway
            self._heard_at = max(now, self._heard_at + ROUND_S)
            loop.call_at(self._heard_at, self._look.set)

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
            if not self._is_busy(agent_id) and (
                target is None or key != (target.url, target.concurrency)
            ):
                del self._diallers[agent_id]
                await dialler.close()

    def _is_busy(self, agent_id: UUID) -> bool:
        """Tell whether a request to the agent is open."""
        return any(push.get_name() == str(agent_id) for push in self._pushes.values())

    def _dialler(self, target: Target) -> Dialler:
        made = self._diallers.get(target.agent_id)
        if made is None:
            made = ((target.url, target.concurrency), Dialler(target))
            self._diallers[target.agent_id] = made
        return made[1]

    async def _beat(self) -> None:
        if mine := self._mine():
            await in_thread(sessions.beat)(list(mine))

    def _mine(self) -> dict[UUID, Target]:
        return {found.session_id: found for found in self._targets.values() if found.session_id}

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
        was_busy = self._is_busy(target.agent_id)
        wrong = await self._dialler(target).probe(target)
        if wrong == SILENT and (was_busy or self._is_busy(target.agent_id)):
            return  # it does one thing at a time, and the probe waits behind its task
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
        await self._record(target, task, answer)
        if not answer.reached:
            self._probe_at.pop(target.agent_id, None)
        self._look.set()

    async def _record(self, target: Target, task: Claimed, answer: Answer) -> None:
        """Write an answer; what cannot be written is given back by the next sweep."""
        for tried in range(RECORD_TRIES):
            if await self._guarded(partial(pushing.record, target, task, answer), "push"):
                if answer.kind == "accepted":
                    self._accepted.add((task.id, task.fence))
                return
            await asyncio.sleep(0.1 * 2**tried)

    async def _sweep(self) -> None:
        """Break off what is over: cancelled, timed out, given back. Give back what was missed."""
        for key in await in_thread(pushing.over)(list(self._pushes)):
            if push := self._pushes.get(key):
                push.cancel()
        await self._give_back_missed()

    async def _give_back_missed(self) -> None:
        """Give back what the sessions hold and nobody knows of: its answer could not be written."""
        mine = self._mine()
        # Asked for before the database is: what ends meanwhile is not missed.
        known = {*self._pushes, *self._accepted}
        held = await in_thread(pushing.held_by)(list(mine))
        self._accepted &= held.keys()
        for (task_id, fence), session_id in held.items():
            if (task_id, fence) not in known:
                reason = "what became of it could not be written"
                await self._guarded(
                    partial(pushing.lose, mine[session_id], task_id, fence, reason), "give back"
                )

    async def _guarded(self, verb: Callable[[], None], what: str) -> bool:
        """Write to the database; return whether that went well."""
        try:
            await in_thread(verb)()
        except ConflictError:
            return True  # it is over already
        except Exception:
            log.exception("pusher.failed", what=what)
            return False
        return True

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
        await self._give_back_missed()
        await in_thread(pushing.leave)(list(self._mine()))
        for _, dialler in self._diallers.values():
            await dialler.close()
