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

from agents import queues, transitions, usage, workload
from agents.recycling import Wear, due
from agents.specs import Spec
from agents.supervisor import faults, processes, records
from agents.supervisor.announcer import Announcer
from agents.supervisor.autoscaler import Autoscaler
from agents.supervisor.births import Births
from agents.supervisor.children import Child, Memory
from agents.supervisor.desired import Pause, decide
from agents.supervisor.ledger import STOPPED, Ledger
from agents.supervisor.nursery import Nursery
from agents.supervisor.orders import last_lines
from agents.supervisor.records import Wanted
from agents.supervisor.sampling import Sampler
from agents.supervisor.scribe import Scribe
from agents.supervisor.wire import Wire
from opscore.config import Config
from opscore.logs import get_logger

log = get_logger(__name__)
#: How often it looks at the database when nothing calls it; what changes there calls it.
LOOK_S = 1.0
#: How often while an agent drains: does it still have tasks?
DRAIN_LOOK_S = 0.1
#: How long it leaves a database in peace that does not answer, or a zygote that died.
AWAY_S = 1.0
#: How long a supervisor that stops tries to write down how its agents ended.
LAST_WORD_S = 5.0
#: A program that still has tasks so long before the end of its drain time gets its SIGTERM.
LAST_CALL_S = 5.0


class Controller:
    """One host's supervisor; `run` until `stop` was called and every agent has ended."""

    def __init__(self, config: Config, host: str, specs: Mapping[str, Spec]) -> None:
        self.config = config
        self.host = host
        self.specs = specs
        self.ttl_s = config.session_ttl_s
        self.beat_s = min(5.0, self.ttl_s / 6)
        self.scribe = Scribe()
        self.autoscaler = Autoscaler(specs)
        self.sampler = Sampler()
        self.memories: dict[UUID, Memory] = {}
        self.nursery = Nursery(sorted({s.handlers for s in specs.values() if s.handlers}))
        self.announcer = Announcer()
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
        """Supervise; raises ConflictError when the host has a supervisor already."""
        processes.adopt_orphans()
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
        processes.kill_strays(())
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
        if self.nursery.wire is None and now >= self._zygote_at and not self._draining:
            self._watch(self.nursery.start(), self._on_zygote)
        # Most of what wakes us is a beat, and needs no look at the whole fleet.
        if self._dirty or now >= self._due_at:
            self._enforce(now)
            self._sync(now)

    def _next_due(self, now: float) -> float:
        """Return when something has to be done although nobody calls."""
        due = [now + LOOK_S]
        if self._draining:
            return min([*due, now + DRAIN_LOOK_S])
        for memory in self.memories.values():
            child = memory.child
            if child is None:
                # One that is past was looked at; what it still waits for, wakes us.
                due += [memory.pause.until] if memory.pause.until > now else []
            elif child.stopping and not child.killed:
                due.append(now + DRAIN_LOOK_S)
        return min(due)

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
            elif child.term_at is not None and now >= child.term_at:
                self._terminate(child)
            elif not child.stopping and (fault := self._fault(child, now)):
                self._kill(child, "", fault)

    def _fault(self, child: Child, now: float) -> str:
        spec, used = self.specs.get(child.agent.spec), self.sampler.last.get(child.agent.id)
        return faults.of(child, spec, used.memory if used else 0, self.ttl_s, now)

    def _sync(self, now: float) -> None:
        """Write what happened, read what is wanted, act; the order makes any repeat harmless."""
        try:
            self._listen()
            self.ledger.write_exits(leaving=self._draining)
            self.ledger.write_ready(self._children())
            self._beat(now)
            self.ledger.answer_questions()
            self._finish_drains()
            if not self._draining:
                self.ledger.resize(self.autoscaler, now)
                self._act(now)
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
                self._kill(child, "its session was ended")
            leaders = {child.agent.id: child.pid for child in self._children() if child.pid}
            usage.write(self.sampler.sample(leaders, now))
            self._beat_at = now + self.beat_s

    def _finish_drains(self) -> None:
        """Tell programs to end that were asked to take nothing new and have nothing left."""
        asked = [child for child in self._children() if child.term_at is not None]
        tasks = workload.running_of([child.agent.id for child in asked])
        for child in asked:
            if not tasks[child.agent.id]:
                child.was_idle = True
                self._terminate(child)

    def _act(self, now: float) -> None:
        wanted = records.wanted(self.host)
        offered = queues.offers()
        for agent_id in {*wanted, *self.memories}:
            memory = self.memories.setdefault(agent_id, Memory())
            agent = wanted.get(agent_id)
            if agent is not None:
                memory.look(agent)
                self._step(agent, memory, offered, now)
            elif memory.child is not None:
                self._kill(memory.child, "the agent was deleted")
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
            self._drain(child, reason, now)
        elif step == "kill":
            # A program that is silent or ends its session must not be started in a hot loop.
            own = agent.polls and not agent.condemned
            self._kill(child, "" if own else reason, reason if own else "")
        else:
            self._tell(agent, child, offered)
            self._recycle(child, now)

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
        child, link = self.births.prepare(agent, self._serving(agent, offered), now)
        memory.child = child
        self._watch(child.link, partial(self._on_child, child))
        if not self.births.give(child, link):
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

    def _drain(self, child: Child, reason: str, now: float) -> None:
        if child.stopping:
            return
        child.stopping = reason
        child.kill_at = now + self.config.drain_s
        with contextlib.suppress(DatabaseError):
            transitions.change([child.agent.id], "draining", reason=reason)
            if child.beats_itself:
                # From now on its claims come back empty; `_finish_drains` waits for the rest.
                child.term_at = child.kill_at - min(LAST_CALL_S, self.config.drain_s / 2)
                self._dirty = True
                return
        self._terminate(child)

    def _terminate(self, child: Child) -> None:
        child.term_at = None
        self.nursery.signal(str(child.session_id), signal.SIGTERM)

    def _kill(self, child: Child, reason: str, fault: str = "") -> None:
        """Kill a process with all that it started; with a `fault` of its own it is a crash."""
        if child.killed:
            return
        child.killed, child.stopping, child.cause = True, reason, fault
        child.term_at = None
        self.nursery.signal(str(child.session_id), signal.SIGKILL)

    def _recycle(self, child: Child, now: float) -> None:
        spec = self.specs.get(child.agent.spec)
        if spec is None or not child.ready or child.stopping:
            return
        used = self.sampler.last.get(child.agent.id)
        wear = Wear(child.tasks, used.memory if used else 0, now - child.started)
        reason = due(spec.recycle, wear)
        if reason and not self._is_recycling(spec.name):
            self._drain(child, reason, now)

    def _is_recycling(self, spec: str) -> bool:
        """Tell whether one of a pool is being replaced: its others go on meanwhile."""
        return any(child.agent.spec == spec and child.stopping for child in self._children())

    # ------------------------------------------------------------ what comes in

    def _on_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(4096)

    def _on_news(self) -> None:
        self._dirty = True

    def _on_child(self, child: Child) -> None:
        for message in child.link.receive():
            child.heard = time.monotonic()
            child.tasks = message.get("tasks", child.tasks)
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
        processes.kill_strays(())
        self._zygote_at = time.monotonic() + AWAY_S

    def _exited(self, child: Child, code: int, why: str) -> None:
        self._unwatch(child.link)
        child.link.close()
        self.scribe.finish(child.output)
        self.sampler.forget(child.agent.id)
        why = child.cause or why or self._limit_hit(child, code)
        self.ledger.exits.append(self.memories[child.agent.id].ended(time.monotonic(), code, why))
        self._dirty = True

    def _limit_hit(self, child: Child, code: int) -> str:
        spec = self.specs.get(child.agent.spec)
        if spec is None or child.stopping:
            return ""
        lines = last_lines(self.ledger.log_of(child.agent))
        return faults.limit_hit(spec, code, child.cpu_s, lines)

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
