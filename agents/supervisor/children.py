"""What the controller remembers of its agents between two looks at the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from agents.hearing import Pulse
from agents.supervisor import policy
from agents.supervisor.desired import Have, Pause, Want
from agents.supervisor.records import Wanted
from agents.supervisor.scribe import Roll
from agents.supervisor.wire import Wire
from opscore.exits import describe


@dataclass
class Child:
    """One process, from its order to its exit. Times are monotonic seconds."""

    agent: Wanted
    session_id: UUID
    link: Wire
    output: Roll
    """Where the scribe puts what it writes."""
    queues: list[str]
    started: float
    heard: float
    """When it last beat."""
    paused: bool = False
    """What it was told last."""
    pid: int | None = None
    pid_written: bool = False
    tasks: int = 0
    """How many it has begun."""
    pulse: Pulse = field(default_factory=Pulse)
    """What it said with its last beat."""
    ready: bool = False
    ready_written: bool = False
    stopping: str = ""
    """Why its end was asked for; empty: an exit is a crash."""
    asked_at: float = 0.0
    """When its end was asked for."""
    is_told: bool = True
    """It drains and got its SIGTERM; a program gets it when it has no task any more."""
    is_hurried: bool = False
    """Its supervisor stops: it has the drain time, whatever it works on."""
    term_at: float | None = None
    """When a hurried program is told to end although it still has tasks."""
    was_idle: bool = False
    """It was told to end when it had no task any more: however it does, nothing is lost."""
    kill_at: float | None = None
    """End of the time that it has, once it has no task or is hurried."""
    killed: bool = False
    cause: str = ""
    """Why it was killed for its own fault: its exit is a crash, and this is the reason."""
    cpu_s: float = 0.0
    """What it used, once it has ended."""

    @property
    def beats_itself(self) -> bool:
        """Whether its own heartbeats over HTTP say that it lives, not ours."""
        return self.agent.polls and self.ready

    @property
    def have(self) -> Have:
        """What `desired.decide` needs to know."""
        return Have(self.agent.generation, draining=bool(self.stopping))

    def life(self, now: float, code: int) -> policy.Life:
        """What `policy.judge` needs to know."""
        return policy.Life(now - self.started, self.ready, code, needs_api=self.agent.polls)


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
    row: Wanted | None = None
    """The agent as last read."""

    @property
    def is_due(self) -> bool:
        """Whether it should run, can, and does not: it will, in a moment."""
        row, child = self.row, self.child
        if row is None or not row.running or row.status == "error":
            return False
        return child is None or bool(child.stopping) or not child.ready

    def look(self, agent: Wanted) -> None:
        """Learn from its session what a program does: it speaks to the API, not to us."""
        self.row, child = agent, self.child
        if child is not None and agent.polls and agent.live_session == child.session_id:
            child.ready = agent.is_ready
            child.tasks = agent.claims

    def want(self, agent: Wanted) -> Want:
        """What `desired.decide` needs to know of the agent's row."""
        child = self.child
        same = child is not None and agent.live_session == child.session_id
        # A program that drains may end its session before it ends itself.
        leaves = child is not None and agent.polls and bool(child.stopping)
        return Want(
            running=agent.running,
            generation=agent.generation,
            live_session=child is None or same or leaves,
            condemned=agent.condemned if same else "",
        )

    def ended(self, now: float, code: int, why: str = "") -> Exit:
        """Take note of the exit of the present process; returns what it means."""
        child = self.child
        if child is None:
            raise LookupError("this agent has no process")
        self.child = None
        if child.stopping:
            in_order = not child.killed and (code == 0 or child.was_idle)
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
