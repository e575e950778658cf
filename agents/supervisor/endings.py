"""How the processes of one host end: asked to finish, hurried, told, killed."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable

from django.db.utils import DatabaseError

from agents import transitions, workload
from agents.supervisor.children import Child
from agents.supervisor.nursery import Nursery

#: How often a process that was asked to end is looked at, and for how long so often.
LOOK_S = 0.1
_LOOK_CLOSELY_S = 10.0
#: A program that still has tasks so long before the end of its time gets its SIGTERM.
_LAST_CALL_S = 5.0


class Endings:
    """Ends processes. Who has a task may finish it, unless the supervisor itself must go."""

    def __init__(self, nursery: Nursery, drain_s: float) -> None:
        self._nursery = nursery
        self._drain_s = drain_s

    def drain(self, child: Child, reason: str, now: float) -> None:
        """Have it take nothing new, and end when it has no task any more, however long that is."""
        if child.stopping:
            return
        child.stopping, child.asked_at = reason, now
        with contextlib.suppress(DatabaseError):
            transitions.change([child.agent.id], "draining", reason=reason)
            if child.beats_itself:
                # From now on its claims come back empty; `step` waits for the rest.
                child.is_told = False
                return
        self._tell(child)

    def hurry(self, child: Child, reason: str, now: float) -> None:
        """Drain it, and kill it at the end of the drain time whatever it does then."""
        self.drain(child, reason, now)
        child.is_hurried = True
        child.kill_at = now + self._drain_s
        if not child.is_told:
            child.term_at = child.kill_at - min(_LAST_CALL_S, self._drain_s / 2)

    def step(self, children: Iterable[Child], now: float) -> None:
        """Tell those to end that have no task any more; so told, they have the drain time for it.

        Raises DatabaseError.
        """
        asked = [child for child in children if child.stopping and not child.killed]
        tasks = workload.running_of([child.agent.id for child in asked])
        for child in asked:
            if not tasks[child.agent.id]:
                self._end_idle(child, now)
            elif not child.is_hurried:
                # A message that it had already may become a task after it was told.
                child.kill_at = None

    def enforce(self, child: Child, now: float) -> None:
        """Do what the time says."""
        if child.kill_at is not None and now >= child.kill_at:
            self.kill(child, child.stopping)
        elif child.term_at is not None and now >= child.term_at:
            self._tell(child)

    def kill(self, child: Child, reason: str, fault: str = "") -> None:
        """Kill a process with all that it started; with a `fault` of its own it is a crash."""
        if child.killed:
            return
        child.killed, child.stopping, child.cause = True, reason, fault
        child.term_at = None
        self._nursery.signal(str(child.session_id), signal.SIGKILL)

    def _end_idle(self, child: Child, now: float) -> None:
        if not child.is_told:
            child.was_idle = True
            self._tell(child)
        if child.kill_at is None:
            child.kill_at = now + self._drain_s

    def _tell(self, child: Child) -> None:
        child.is_told, child.term_at = True, None
        self._nursery.signal(str(child.session_id), signal.SIGTERM)


def is_watched_closely(child: Child, now: float) -> bool:
    """Tell whether a process is expected to end any moment; one with a long task is not."""
    is_asked = bool(child.stopping) and not child.killed
    return is_asked and (child.is_hurried or now - child.asked_at < _LOOK_CLOSELY_S)
