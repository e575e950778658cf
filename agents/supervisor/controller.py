"""The controller: reads what should be, makes it so through the zygote, writes what is."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.utils import DatabaseError

from agents import queues, transitions
from agents.specs import Spec
from agents.supervisor import processes, records
from agents.supervisor.announcer import Announcer
from agents.supervisor.children import Child, Memory
from agents.supervisor.desired import Pause, Want, decide
from agents.supervisor.ledger import STOPPED, Ledger
from agents.supervisor.nursery import Nursery
from agents.supervisor.orders import Order
from agents.supervisor.records import Wanted
from agents.supervisor.wire import Wire
from opscore.config import Config
from opscore.logs import get_logger

log = get_logger(__name__)
#: How often it looks at the database when nothing calls it.
LOOK_S = 0.5
#: How long it leaves a database in peace that does not answer, or a zygote that died.
AWAY_S = 1.0

#: How long a supervisor that stops tries to write down how its agents ended.
LAST_WORD_S = 5.0


class Controller:
    """One host's supervisor; `run` until `stop` was called and every agent has ended."""

    def __init__(self, config: Config, host: str, specs: Mapping[str, Spec]) -> None:
        self.config = config
        self.host = host
        self.specs = specs
        self.beat_s = min(5.0, config.session_ttl_s / 6)
        self.memories: dict[UUID, Memory] = {}
        self.nursery = Nursery(sorted({s.handlers for s in specs.values() if s.handlers}))
        self.announcer = Announcer()
        self.ledger = Ledger(config, host, specs, self.announcer)
        self.selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._stops = 0
        self._draining = False
        self._leave_by: float | None = None
        self._dirty = True
        self._look_at = self._beat_at = self._zygote_at = 0.0
        self._looked_until = 0.0

    # ------------------------------------------------------------ life

    def stop(self) -> None:
        """Drain: agents finish their tasks. A second call kills them. Safe in signal handlers."""
        self._stops += 1
        with contextlib.suppress(BlockingIOError):
            self._woken.send(b"x")

    def run(self) -> None:
        """Supervise; raises ConflictError when the host has a supervisor already."""
        processes.adopt_orphans()
        for end in (self._wake, self._woken):
            end.setblocking(False)
        self._watch(self._wake, self._on_wake)
        self.ledger.open(lambda: self._stops > 0)
        self.announcer.start()
        log.info("supervisor.started", host=self.host, specs=sorted(self.specs))
        try:
            while not self._finished():
                for key, _ in self.selector.select(self._pause_s()):
                    key.data()
                self._tick()
        finally:
            self._leave()

    def _finished(self) -> bool:
        if not self._draining or self._children():
            return False
        now = time.monotonic()
        self._leave_by = self._leave_by or now + LAST_WORD_S
        # With the database gone for good, its successor or its silence ends the sessions.
        return not self.ledger.exits or now > self._leave_by

    def _leave(self) -> None:
        self.nursery.stop()
        processes.kill_strays(())
        self.ledger.close(self._children())
        self.announcer.stop()
        connection.close()
        log.info("supervisor.stopped", host=self.host)

    # ------------------------------------------------------------ the loop

    def _pause_s(self) -> float:
        if self._dirty:
            return 0.0
        due = [self._look_at, *self._ends_of_pauses()]
        due += [child.kill_at for child in self._children() if child.kill_at is not None]
        return max(0.0, min(due) - time.monotonic())

    def _tick(self) -> None:
        now = time.monotonic()
        self._heed_stops(now)
        if self.nursery.wire is None and now >= self._zygote_at and not self._draining:
            self._watch(self.nursery.start(), self._on_zygote)
        self._enforce(now)
        if self._dirty or now >= min([self._look_at, *self._ends_of_pauses()]):
            self._sync(now)

    def _ends_of_pauses(self) -> list[float]:
        """Return when agents may be started again that crashed: each end is worth one look."""
        if self._draining:
            return []
        ends = [m.pause.until for m in self.memories.values() if m.child is None]
        return [until for until in ends if until > self._looked_until]

    def _heed_stops(self, now: float) -> None:
        if self._stops and not self._draining:
            self._draining = True
            log.info("supervisor.draining", host=self.host, seconds=self.config.drain_s)
            for child in self._children():
                self._drain(child, STOPPED, now)
            self._dirty = True
        if self._stops > 1:
            for child in self._children():
                self._kill(child, STOPPED)

    def _enforce(self, now: float) -> None:
        for child in self._children():
            if child.kill_at is not None and now >= child.kill_at:
                self._kill(child, child.stopping)
            elif not child.stopping and now - child.heard > self.config.session_ttl_s:
                self._kill(child, "")

    def _sync(self, now: float) -> None:
        """Write what happened, read what is wanted, act; the order makes any repeat harmless."""
        try:
            self._listen()
            self.ledger.write_exits(leaving=self._draining)
            self.ledger.write_ready(self._children())
            self._beat(now)
            if not self._draining:
                self._act(now)
        except DatabaseError as error:
            log.warning("supervisor.database_away", error=str(error).strip().partition("\n")[0])
            descriptor = self.ledger.lost()
            if descriptor is not None:
                self.selector.unregister(descriptor)
            self._look_at = self._looked_until = now + AWAY_S
        else:
            self._look_at, self._looked_until = now + LOOK_S, now
        self._dirty = False

    def _listen(self) -> None:
        descriptor = self.ledger.listen()
        if descriptor is not None:
            self.selector.register(descriptor, selectors.EVENT_READ, self._on_news)

    def _beat(self, now: float) -> None:
        if now >= self._beat_at:
            for child in self.ledger.beat(self._children()):
                self._kill(child, "its session was ended")
            self._beat_at = now + self.beat_s

    def _act(self, now: float) -> None:
        wanted = records.wanted(self.host)
        offered = queues.offers()
        for agent_id in {*wanted, *self.memories}:
            memory = self.memories.setdefault(agent_id, Memory())
            agent, child = wanted.get(agent_id), memory.child
            want = _want(agent, child) if agent else None
            step, reason = decide(want, child.have if child else None, memory.pause, now)
            if step == "spawn" and agent is not None:
                self._spawn(agent, memory, offered, now)
            elif step == "stopped" and agent is not None:
                transitions.change([agent.id], "terminated", reason=reason)
            elif step == "drain" and child is not None:
                self._drain(child, reason, now)
            elif step == "kill" and child is not None:
                self._kill(child, reason)
            elif agent is not None and child is not None:
                self._tell(agent, child, offered)
            elif agent is None:
                del self.memories[agent_id]

    # ------------------------------------------------------------ processes

    def _spawn(
        self, agent: Wanted, memory: Memory, offered: list[queues.Offer], now: float
    ) -> None:
        if not self.nursery.loaded:
            return
        spec = self.specs.get(agent.spec)
        if spec is None and not agent.is_platform:
            memory.pause = Pause(gave_up_on=agent.generation)
            reason = f"the agents file of {self.host} has no spec {agent.spec!r}"
            transitions.change([agent.id], "error", reason=reason)
            return
        serving = self._serving(agent, offered)
        session = records.start_session(agent.id, self.host, serving)
        mine, its = socket.socketpair()
        order = Order(
            session_id=str(session.pk),
            agent_id=str(agent.id),
            agent=agent.name,
            host=self.host,
            spec=asdict(spec) if spec else {},
            capabilities=agent.capabilities,
            queues=serving,
            paused=agent.paused,
            log=str(self.ledger.log_of(agent)),
            beat_s=self.beat_s,
        )
        mine.setblocking(False)
        child = Child(agent, session.pk, Wire(mine), serving, started=now, heard=now)
        child.paused = agent.paused
        memory.child = child
        self._watch(child.link, partial(self._on_child, child))
        sent = self.nursery.fork(order, its)
        its.close()
        if not sent:
            self._exited(child, -signal.SIGKILL, "the zygote died")

    def _tell(self, agent: Wanted, child: Child, offered: list[queues.Offer]) -> None:
        """Tell a running agent what has changed for it; what it cannot read now is told again."""
        if not child.ready:
            return
        new = sorted(set(self._serving(agent, offered)) - set(child.queues))
        if new and child.link.send({"queues": new}):
            child.queues = sorted({*child.queues, *new})
            records.widen(child.session_id, child.queues)
        if agent.paused != child.paused and child.link.send({"paused": agent.paused}):
            child.paused = agent.paused

    def _drain(self, child: Child, reason: str, now: float) -> None:
        if child.stopping:
            return
        child.stopping = reason
        child.kill_at = now + self.config.drain_s
        self.nursery.signal(str(child.session_id), signal.SIGTERM)
        with contextlib.suppress(DatabaseError):
            transitions.change([child.agent.id], "draining", reason=reason)

    def _kill(self, child: Child, reason: str) -> None:
        if child.killed:
            return
        child.killed, child.stopping = True, reason
        self.nursery.signal(str(child.session_id), signal.SIGKILL)

    # ------------------------------------------------------------ what comes in

    def _on_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(4096)

    def _on_news(self) -> None:
        self._dirty = True

    def _on_child(self, child: Child) -> None:
        for message in child.link.receive():
            child.heard = time.monotonic()
            if message["news"] == "ready":
                child.ready = self._dirty = True
        if child.link.closed:
            # The zygote is about to report why; nothing more comes from here.
            self._unwatch(child.link)

    def _on_zygote(self) -> None:
        for message in self.nursery.hear():
            self._dirty = True
            child = self._child_of(str(message.get("session", "")))
            if child is None:
                continue
            if message["event"] == "started":
                child.pid = message["pid"]
            else:
                self._exited(child, message["code"], message["why"])
        if self.nursery.wire is not None and self.nursery.wire.closed:
            self._zygote_died()

    def _zygote_died(self) -> None:
        log.error("supervisor.zygote_died", host=self.host)
        if self.nursery.wire is not None:
            self._unwatch(self.nursery.wire)
        self.nursery.stop()
        for child in self._children():
            if child.pid is not None:
                processes.kill_group(child.pid)
            self._exited(child, -signal.SIGKILL, "the zygote died")
        processes.kill_strays(())
        self._zygote_at = time.monotonic() + AWAY_S

    def _exited(self, child: Child, code: int, why: str) -> None:
        self._unwatch(child.link)
        child.link.close()
        if child.killed and not child.stopping:
            why = f"silent for {self.config.session_ttl_s:g} s"
        self.ledger.exits.append(self.memories[child.agent.id].ended(time.monotonic(), code, why))
        self._dirty = True

    # ------------------------------------------------------------ small answers

    def _children(self) -> list[Child]:
        return [memory.child for memory in self.memories.values() if memory.child is not None]

    def _child_of(self, session_id: str) -> Child | None:
        found = (child for child in self._children() if str(child.session_id) == session_id)
        return next(found, None)

    def _serving(self, agent: Wanted, offered: list[queues.Offer]) -> list[str]:
        matching = queues.select(
            agent.project_id, agent.project, agent.capabilities, agent.labels, offered
        )
        return records.queues_of(agent, matching)

    def _watch(self, source: Any, serve: Callable[[], None]) -> None:
        self.selector.register(source, selectors.EVENT_READ, serve)

    def _unwatch(self, wire: Wire) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(wire)


def _want(agent: Wanted, child: Child | None) -> Want:
    same = child is not None and agent.live_session == child.session_id
    return Want(
        running=agent.running,
        generation=agent.generation,
        live_session=child is None or same,
        condemned=agent.condemned if same else "",
    )
