"""What the controller remembers of its agents between two looks at the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from agents.supervisor import policy
from agents.supervisor.desired import Have, Pause
from agents.supervisor.records import Wanted
from agents.supervisor.wire import Wire
from opscore.exits import describe


@dataclass
class Child:
    """One process, from its order to its exit. Times are monotonic seconds."""

    agent: Wanted
    session_id: UUID
    link: Wire
    queues: list[str]
    started: float
    heard: float
    """When it last beat."""
    paused: bool = False
    """What it was told last."""
    pid: int | None = None
    ready: bool = False
    ready_written: bool = False
    stopping: str = ""
    """Why its end was asked for; empty: an exit is a crash."""
    kill_at: float | None = None
    """End of the time that a draining child has."""
    killed: bool = False

    @property
    def have(self) -> Have:
        """What `desired.decide` needs to know."""
        return Have(self.agent.generation, draining=bool(self.stopping))

    def life(self, now: float, code: int) -> policy.Life:
        """What `policy.judge` needs to know."""
        return policy.Life(now - self.started, self.ready, code)


@dataclass(frozen=True)
class Exit:
    """A process that ended and what follows; kept until the database knows."""

    child: Child
    reason: str
    drained: bool
    """It stopped in order: nothing was lost."""
    crashed: bool
    given_up: bool = False


@dataclass
class Memory:
    """One agent: its present process and the lives before."""

    child: Child | None = None
    history: policy.History = field(default_factory=policy.History)
    pause: Pause = field(default_factory=Pause)

    def ended(self, now: float, code: int, why: str = "") -> Exit:
        """Take note of the exit of the present process; returns what it means."""
        child = self.child
        if child is None:
            raise LookupError("this agent has no process")
        self.child = None
        if child.stopping:
            in_order = not child.killed and code == 0
            how = "" if in_order else f" ({describe(code)})"
            return Exit(child, f"{child.stopping}{how}", drained=in_order, crashed=False)
        if code == 0:
            why = why or "it ended by itself with exit code 0"
        reason = why or f"it died: {describe(code)}"
        verdict = policy.judge(self.history, child.life(now, code))
        self.history = verdict.history
        if verdict.delay_s is None:
            self.history = policy.History()
            self.pause = Pause(gave_up_on=child.agent.generation)
            return Exit(child, reason, drained=False, crashed=True, given_up=True)
        self.pause = Pause(until=now + verdict.delay_s)
        return Exit(child, reason, drained=False, crashed=True)
