"""The controller: reads what should be, makes it so through the zygote, writes what is."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.utils import DatabaseError

from agents import queues, transitions, usage
from agents.hearing import Pulse, beat_every
from agents.recycling import Wear, due, is_worn_out
from agents.specs import Spec
from agents.supervisor import endings, faults, processes, records
from agents.supervisor.announcer import Announcer
from agents.supervisor.autoscaler import Autoscaler
from agents.supervisor.births import Births
from agents.supervisor.children import Child, Memory
from agents.supervisor.desired import Pause, decide
from agents.supervisor.endings import Endings
from agents.supervisor.ledger import STOPPED, Ledger
from agents.supervisor.nursery import Nursery
from agents.supervisor.prober import Prober
from agents.supervisor.records import Wanted
from agents.supervisor.sampling import Sampler
from agents.supervisor.scribe import Scribe
from agents.supervisor.wire import Wire
from opscore.config import Config
from opscore.logs import get_logger

log = get_logger(__name__)
#: How often it looks at the database when nothing calls it; what changes there calls it.
LOOK_S = 1.0
#: How long it leaves a database in peace that does not answer, or a zygote that died.
AWAY_S = 1.0
#: How long a supervisor that stops tries to write down how its agents ended.
LAST_WORD_S = 5.0
#: How long an agent waits for whom this host has no room.
NO_ROOM_S = 30.0


class Controller:
    """One host's supervisor; `run` until `stop` was called and every agent has ended."""

    def __init__(self, config: Config, host: str, specs: Mapping[str, Spec]) -> None:
        self.config = config
        self.host = host
        self.specs = specs
        self.ttl_s = config.session_ttl_s
        self.beat_s = beat_every(self.ttl_s, config.probe_s)
        self.scribe = Scribe()
        self.autoscaler = Autoscaler(specs)
        self.sampler = Sampler()
        self.memories: dict[UUID, Memory] = {}
        self.nursery = Nursery(sorted({s.handlers for s in specs.values() if s.handlers}))
        self.endings = Endings(self.nursery, config.drain_s)
        self.announcer = Announcer()
        self.prober = Prober(self.announcer, config.probe_s, self.beat_s)
        self.ledger = Ledger(config, host, specs, self.announcer)
        self.births = Births(self.ledger, self.nursery, self.scribe, self.beat_s)
        self.selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._stops = 0
        self._draining = False
        self._leave_by: float | None = None
        self._dirty = True
        self._due_at = self._beat_at = self._zygote_at = 0.0

    # ------------------------------------------------------------ life

    def stop(self) -> None:
        """Drain: agents finish their tasks. A second call kills them. Safe in signal handlers."""
        self._stops += 1
        with contextlib.suppress(BlockingIOError):
            self._woken.send(b"x")

    def run(self) -> None:
        """Supervise; raises ConflictError when the host has a supervisor already.

        HostLostError when another one took it over meanwhile; no agent of ours is left then.
        """
        processes.adopt_orphans()
        # Only this process watches all agents; what each of them may open stays as it was.
        self.nursery.open_files = processes.allow_open_files()
        for end in (self._wake, self._woken):
            end.setblocking(False)
        self._watch(self._wake, self._on_wake)
        self.ledger.open(lambda: self._stops > 0)
        self.announcer.start()
        self.scribe.start()
        processes.end_leftovers(self.host, str(self.config.var_dir))
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
        processes.kill_strays()
        self.scribe.stop()
        self.ledger.close(self._children())
        self.announcer.stop()
        connection.close()
        log.info("supervisor.stopped", host=self.host)

    # ------------------------------------------------------------ the loop

    def _pause_s(self) -> float:
        return 0.0 if self._dirty else max(0.0, self._due_at - time.monotonic())

    def _tick(self) -> None:
        now = time.monotonic()
        self._heed_stops(now)
        self._keep_zygote(now)
        # Most of what wakes us is a beat, and needs no look at the whole fleet.
        if self._dirty or now >= self._due_at:
            self._enforce(now)
            self._sync(now)
        self._mind_orders()

    def _keep_zygote(self, now: float) -> None:
        if self.nursery.wire is not None or now < self._zygote_at or self._draining:
            return
        try:
            self._watch(self.nursery.start(), self._on_zygote)
        except OSError as error:
            log.warning("supervisor.zygote_not_started", host=self.host, error=str(error))
            self._zygote_at = now + AWAY_S

    def _mind_orders(self) -> None:
        """Hear of it when the zygote takes more orders, while some wait."""
        wire = self.nursery.wire
        if wire is not None and not wire.closed:
            asks = selectors.EVENT_WRITE if self.nursery.is_behind else 0
            self.selector.modify(wire, selectors.EVENT_READ | asks, self._on_zygote)

    def _next_due(self, now: float) -> float:
        """Return when something has to be done although nobody calls."""
        due = [now + LOOK_S]
        if self._draining:
            return min([*due, now + endings.LOOK_S])
        for memory in self.memories.values():
            child = memory.child
            if child is None:
                # One that is past was looked at; what it still waits for, wakes us.
                due += [memory.pause.until] if memory.pause.until > now else []
            elif endings.is_watched_closely(child, now):
                due.append(now + endings.LOOK_S)
        return min(due)

    def _heed_stops(self, now: float) -> None:
        if self._stops and not self._draining:
            self._draining = True
            log.info("supervisor.draining", host=self.host, seconds=self.config.drain_s)
            for child in self._children():
                self.endings.hurry(child, STOPPED, now)
            self._dirty = True
        if self._stops > 1:
            for child in self._children():
                self.endings.kill(child, STOPPED)

    def _enforce(self, now: float) -> None:
        for child in self._children():
            if child.stopping:
                self.endings.enforce(child, now)
            elif fault := self._fault(child, now):
                self.endings.kill(child, "", fault)

    def _fault(self, child: Child, now: float) -> str:
        spec = self.specs.get(child.agent.spec)
        most = spec.limits.memory if spec is not None and child.agent.polls else None
        memory = self.sampler.memory(child.agent.id, child.pid, most)
        fault = faults.of(child, spec, memory, self.ttl_s, now)
        return fault or self.prober.fault(child, now)

    def _sync(self, now: float) -> None:
        """Write what happened, read what is wanted, act; the order makes any repeat harmless."""
        try:
            self._listen()
            self.ledger.write_exits(leaving=self._draining)
            self.ledger.write_ready(self._children())
            self._beat(now)
            self.ledger.answer_questions()
            self.endings.step(self._children(), now)
            if not self._draining:
                self.ledger.resize(self.autoscaler, now)
                self._act(now)
                self.prober.step(self._children(), now)
        except DatabaseError as error:
            log.warning("supervisor.database_away", error=str(error).strip().partition("\n")[0])
            descriptor = self.ledger.lost()
            if descriptor is not None:
                self.selector.unregister(descriptor)
            self._due_at = now + AWAY_S
        else:
            self._due_at = self._next_due(now)
        self._dirty = False

    def _listen(self) -> None:
        descriptor = self.ledger.listen()
        if descriptor is not None:
            self.selector.register(descriptor, selectors.EVENT_READ, self._on_news)

    def _beat(self, now: float) -> None:
        if now >= self._beat_at:
            for child in self.ledger.beat(self._children()):
                self.endings.kill(child, "its session was ended")
            leaders = {child.agent.id: child.pid for child in self._children() if child.pid}
            used = self.sampler.sample(leaders, now)
            usage.write(used)
            self.sampler.note(used)
            self._beat_at = now + self.beat_s

    def _act(self, now: float) -> None:
        wanted = records.wanted(self.host)
        offered = queues.offers()
        for agent in wanted.values():
            self.memories.setdefault(agent.id, Memory()).look(agent)
        for agent_id, memory in list(self.memories.items()):
            if agent_id in wanted:
                self._step(wanted[agent_id], memory, offered, now)
            elif memory.child is not None:
                self.endings.kill(memory.child, "the agent was deleted")
            else:
                del self.memories[agent_id]

    def _step(self, agent: Wanted, memory: Memory, offered: list[queues.Offer], now: float) -> None:
        child = memory.child
        step, reason = decide(memory.want(agent), child.have if child else None, memory.pause, now)
        if step == "spawn":
            self._spawn(agent, memory, offered, now)
        elif step == "stopped":
            transitions.change([agent.id], "terminated", reason=reason)
        elif child is None:
            return
        elif step == "drain":
            self.endings.drain(child, reason, now)
        elif step == "kill":
            # A program that is silent or ends its session must not be started in a hot loop.
            own = agent.polls and not agent.condemned
            self.endings.kill(child, "" if own else reason, reason if own else "")
        else:
            self._tell(agent, child, offered)
            self._recycle(child, now)

    # ------------------------------------------------------------ processes

    def _spawn(
        self, agent: Wanted, memory: Memory, offered: list[queues.Offer], now: float
    ) -> None:
        if not self.nursery.takes_orders:
            return
        spec = self.specs.get(agent.spec)
        if spec is None and not agent.is_platform:
            memory.pause = Pause(gave_up_on=agent.generation)
            reason = f"the agents file of {self.host} has no spec {agent.spec!r}"
            transitions.change([agent.id], "error", reason=reason)
            return
        try:
            self.births.check_room(len(self._children()))
            child = self.births.prepare(agent, self._serving(agent, offered), now)
        except OSError as error:
            # One agent waits; the others go on.
            memory.pause = Pause(until=now + NO_ROOM_S)
            self.births.refuse(agent, error)
            return
        memory.child = child
        self._watch(child.link, partial(self._on_child, child))
        if not self.births.give(child):
            self._exited(child, -signal.SIGKILL, "the zygote died")

    def _tell(self, agent: Wanted, child: Child, offered: list[queues.Offer]) -> None:
        """Tell a running agent what has changed for it; what it cannot read now is told again."""
        if not child.ready or agent.polls:
            return
        new = sorted(set(self._serving(agent, offered)) - set(child.queues))
        if new and child.link.send({"queues": new}):
            child.queues = sorted({*child.queues, *new})
            records.widen(child.session_id, child.queues)
        if agent.paused != child.paused and child.link.send({"paused": agent.paused}):
            child.paused = agent.paused

    def _recycle(self, child: Child, now: float) -> None:
        spec = self.specs.get(child.agent.spec)
        if spec is None or not child.ready or child.stopping:
            return
        used = self.sampler.last.get(child.agent.id)
        wear = Wear(child.tasks, used.memory if used else 0, now - child.started)
        reason = due(spec.recycle, wear)
        # Who takes nothing any more helps the pool no longer by waiting for its turn.
        if reason and (is_worn_out(spec.recycle, wear) or not self._is_replacing(spec.name)):
            self.endings.drain(child, reason, now)

    def _is_replacing(self, spec: str) -> bool:
        """Tell whether one of a pool is about to be replaced: its others go on meanwhile."""
        memories = self.memories.values()
        return any(memory.row.spec == spec and memory.is_due for memory in memories if memory.row)

    # ------------------------------------------------------------ what comes in

    def _on_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(4096)

    def _on_news(self) -> None:
        self._dirty = True

    def _on_child(self, child: Child) -> None:
        for message in child.link.receive():
            child.heard = time.monotonic()
            if message["news"] == "beat":
                child.tasks, child.pulse = message["tasks"], Pulse(**message["pulse"])
            if message["news"] == "ready":
                child.ready = self._dirty = True
        if child.link.closed:
            # The zygote is about to report why; nothing more comes from here.
            self._unwatch(child.link)

    def _on_zygote(self) -> None:
        if self.nursery.is_behind:
            # Agents may wait for their turn to be started.
            self.nursery.flush()
            self._dirty = True
        for message in self.nursery.hear():
            self._dirty = True
            child = self._child_of(str(message.get("session", "")))
            if child is None:
                continue
            if message["event"] == "started":
                child.pid = message["pid"]
            else:
                child.cpu_s = message["cpu_s"]
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
        processes.kill_strays()
        self._zygote_at = time.monotonic() + AWAY_S

    def _exited(self, child: Child, code: int, why: str) -> None:
        self._unwatch(child.link)
        child.link.close()
        self.scribe.finish(child.output)
        self.sampler.forget(child.agent.id)
        # One that began, claimed and died since our last look did get ready.
        child.ready = child.ready or (child.agent.polls and self.ledger.began(child.session_id))
        why = child.cause or why or self.ledger.limit_hit(child, code)
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
