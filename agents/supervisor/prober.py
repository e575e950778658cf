"""Finds the deaf workers of one host: alive, idle, and taking nothing from their queues."""

from __future__ import annotations

import queue
import random
from collections.abc import Iterable, Sequence
from functools import partial
from uuid import UUID

from agents import questions
from agents.hearing import Ear, Patience, verdict
from agents.supervisor.announcer import Announcer
from agents.supervisor.children import Child
from opscore.logs import get_logger

log = get_logger(__name__)
#: How often still workers are looked for: those of a large fleet are asked together.
STEP_S = 2.0
#: At most this share of the time that one may be still is added for some of them.
_SPREAD = 0.5


class Prober:
    """Asks the still workers among a supervisor's children, and remembers what came of it."""

    def __init__(self, announcer: Announcer, still_s: float, beat_s: float) -> None:
        self.patience = Patience.of(still_s, beat_s)
        self._announcer = announcer
        self._ears: dict[UUID, Ear] = {}
        self._asked: queue.SimpleQueue[tuple[Sequence[UUID], bool]] = queue.SimpleQueue()
        self._is_asking = False
        self._next = 0.0

    def step(self, children: Iterable[Child], now: float) -> None:
        """Look who was still for too long and have them asked."""
        if self.patience.still_s == 0 or now < self._next:
            return
        self._next = now + min(STEP_S, self.patience.still_s / 4)
        by_session = {child.session_id: child for child in children if not child.agent.polls}
        self._hear(now)
        self._ears = {key: self._ear(child, now) for key, child in by_session.items()}
        due = [key for key, ear in self._ears.items() if ear.is_due(self.patience, now)]
        if due and not self._is_asking:
            self._is_asking = True
            agents = [by_session[key].agent.id for key in due]
            self._announcer.put(partial(self._ask, due, agents))

    def fault(self, child: Child, now: float) -> str:
        """Say that a worker is deaf; '': it is not."""
        if child.session_id not in self._ears:
            return ""
        is_deaf = self._ear(child, now).is_deaf(self.patience, child.heard)
        return verdict(self.patience) if is_deaf else ""

    def _ear(self, child: Child, now: float) -> Ear:
        ear = self._ears.get(child.session_id)
        if ear is None:
            ear = Ear(proven_at=now, spread=random.uniform(0, _SPREAD))  # noqa: S311
        ear.listen(child.pulse, now)
        if not child.ready or child.stopping or child.paused:
            ear.excuse(now)
        return ear

    def _hear(self, now: float) -> None:
        """Learn what has become of the questions."""
        while not self._asked.empty():
            sessions, taken = self._asked.get()
            self._is_asking = False
            if not taken:
                # The broker was away: everybody gets a fresh term.
                for ear in self._ears.values():
                    ear.excuse(now)
                continue
            for ear in filter(None, map(self._ears.get, sessions)):
                ear.asked(now)

    def _ask(self, sessions: Sequence[UUID], agents: Sequence[UUID]) -> None:
        """Called by the announcer, in its thread."""
        try:
            questions.ask(agents)
        except Exception as error:  # noqa: BLE001 - whatever a broker's client raises
            log.warning("supervisor.workers_not_asked", error=str(error))
            self._asked.put((sessions, False))
        else:
            self._asked.put((sessions, True))
