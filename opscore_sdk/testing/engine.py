"""The engine of the in-memory platform: who has which task, under which fence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from opscore_sdk.testing.records import (
    MAX_LOSSES,
    AgentRecord,
    SessionRecord,
    TaskRecord,
    new_id,
    shown_time,
)
from opscore_sdk.testing.refusals import Refused
from opscore_sdk.testing.wishes import Wishes

REFUSED = (
    "The report is refused: this attempt is over (it was given to another agent, "
    "cancelled, or reported before)."
)


class Engine:
    """Agents, sessions and tasks. Not safe for threads: the platform holds a lock around it."""

    def __init__(self, clock: Callable[[], float], session_ttl_s: float) -> None:
        self.now = clock
        self.session_ttl_s = session_ttl_s
        self.agents: dict[str, AgentRecord] = {}
        self.sessions: dict[str, SessionRecord] = {}
        self.tasks: dict[str, TaskRecord] = {}
        self.wishes = Wishes(self)

    def tick(self) -> None:
        """Do what time alone brings: silent sessions, timeouts, retries that are due."""
        now = self.now()
        for session in self.sessions.values():
            if session.ended_at is None and now - session.seen_at > self.session_ttl_s:
                self.end_session(session, "silent for too long", status="unresponsive")
        for task in self.tasks.values():
            if task.status == "retrying" and task.wake_at is not None and task.wake_at <= now:
                task.status, task.wake_at, task.ready_at = "queued", None, now
            elif _is_overdue(task, now):
                error = {"type": "timeout", "message": f"it took more than {task.timeout_s:g} s"}
                self._fail(task, {**error, "retryable": True}, "timeout")

    # Agents and sessions

    def register(
        self,
        name: str,
        kind: str,
        capabilities: list[str],
        labels: list[str],
        concurrency: int | None = None,
    ) -> tuple[AgentRecord, bool]:
        """Make sure that the agent exists; True: it is new. Refused: it is of another kind."""
        now = self.now()
        agent = self.agents.get(name)
        if agent is None:
            agent = AgentRecord(new_id(now), name, kind, capabilities, labels, now, now)
            agent.concurrency = concurrency
            self.agents[name] = agent
            return agent, True
        if agent.kind != kind:
            raise Refused(409, f"The agent {name!r} is registered as {agent.kind}, not {kind}.")
        agent.capabilities, agent.labels, agent.desired = capabilities, labels, "running"
        agent.concurrency = concurrency
        if agent.status == "terminated":
            agent.status = "initializing"
        return agent, False

    def begin(self, agent: AgentRecord, host: str, pid: int | None) -> SessionRecord:
        """Begin a session; an open one of the agent ends."""
        if agent.desired != "running":
            raise Refused(409, f"The agent {agent.name!r} was stopped; register it again.")
        for older in self.open_sessions(agent):
            self.end_session(older, "replaced by a newer session")
        now = self.now()
        session = SessionRecord(new_id(now), agent, host, pid, now, now)
        self.sessions[session.id] = session
        agent.status, agent.reason = "active", ""
        return session

    def open_sessions(self, agent: AgentRecord) -> list[SessionRecord]:
        """Return the agent's sessions that have not ended."""
        mine = [session for session in self.sessions.values() if session.agent is agent]
        return [session for session in mine if session.ended_at is None]

    def end_session(self, session: SessionRecord, reason: str, *, status: str = "") -> None:
        """End a session and give back what it held; harmless when it has ended."""
        if session.ended_at is not None:
            return
        session.ended_at, session.end_reason = self.now(), reason
        session.agent.status = status or session.agent.status
        for task in self.held_by(session):
            self._lose(task, reason)

    def held_by(self, session: SessionRecord) -> list[TaskRecord]:
        """Return the tasks that a session runs."""
        return [task for task in self.tasks.values() if task.session is session]

    def running(self, agent: AgentRecord) -> int:
        """Count the tasks that an agent runs."""
        held = (task.session for task in self.tasks.values() if task.status == "running")
        return sum(session is not None and session.agent is agent for session in held)

    def is_free(self, agent: AgentRecord) -> bool:
        """Tell whether an agent may have one more task."""
        return agent.concurrency is None or self.running(agent) < agent.concurrency

    # Tasks

    def claim(self, session: SessionRecord, limit: int) -> list[TaskRecord]:
        """Give a session up to `limit` tasks, the most urgent first."""
        agent = session.agent
        if not agent.takes_work:
            return []
        fitting = [
            task
            for task in self.tasks.values()
            if task.status == "queued" and not task.run_paused and agent.can_do(task)
        ]
        taken: list[TaskRecord] = []
        for task in sorted(fitting, key=lambda task: (-task.priority, task.ready_at)):
            if len(taken) < limit and self.is_free(agent) and self.wishes.allow(task, agent):
                task.status, task.session, task.last_session = "running", session, session
                task.fence += 1
                task.started_at = self.now()
                taken.append(task)
        return taken

    def put_back(self, task: TaskRecord) -> None:
        """Give back a claim that its executor never learned of: no loss, no attempt."""
        task.status, task.session = "queued", None
        task.fence += 1

    def take_away(self, task: TaskRecord) -> None:
        """Give a running task to somebody else, who never reports it."""
        task.session = None
        task.fence += 1

    def holds(self, task_id: str, fence: int) -> bool:
        """Tell whether the fence holds a running attempt."""
        task = self.tasks.get(task_id)
        return task is not None and task.status == "running" and task.fence == fence

    def complete(self, task: TaskRecord, fence: int, result: Any) -> None:
        """Record a result. Refused: the attempt is over."""
        self._need(task, fence)
        task.result, task.error = result, None
        self._end(task, "completed")

    def fail(self, task: TaskRecord, fence: int, error: Mapping[str, Any]) -> None:
        """Record a failure: tried again by the task's policy, or final."""
        self._need(task, fence)
        self._fail(task, error, "failed")

    def cancel(self, task: TaskRecord) -> None:
        """Cancel a task that has not ended. Refused: it has."""
        if task.has_ended:
            raise Refused(409, f"The task has ended: it is {task.status}.")
        error = {"type": "cancelled", "message": "cancelled", "retryable": False}
        if task.status == "running":
            task.note_attempt("cancelled", error, self.now())
        task.error = error
        task.fence += 1
        self._end(task, "cancelled")

    def tell(self, task: TaskRecord, fence: int, fraction: float | None, message: str) -> None:
        """Keep the progress of a running attempt."""
        self._need(task, fence)
        told = {"attempt": task.attempt, "fraction": fraction, "message": message}
        task.progress = {**told, "updated_at": shown_time(self.now())}

    def log(self, task: TaskRecord, fence: int, lines: Collection[str], stream: str) -> None:
        """Add lines to the log of a running attempt."""
        self._need(task, fence)
        for line in (line for text in lines for line in text.splitlines()):
            place = len(task.logs) + 1
            row = {"id": place, "attempt": task.attempt, "stream": stream, "text": line[:4000]}
            task.logs.append({**row, "at": shown_time(self.now())})

    def _need(self, task: TaskRecord, fence: int) -> None:
        if not self.holds(task.id, fence):
            raise Refused(409, REFUSED)

    def _fail(self, task: TaskRecord, error: Mapping[str, Any], outcome: str) -> None:
        now = self.now()
        task.error = dict(error)
        task.note_attempt(outcome, error, now)
        if task.attempt > task.retry.get("limit", 0) or error.get("retryable") is False:
            task.fence += 1
            return self._end(task, "failed")
        growth = task.retry.get("factor", 2.0) ** (task.attempt - 1)
        delay_s = min(task.retry.get("initial_s", 1.0) * growth, task.retry.get("max_s", 300.0))
        task.status, task.session, task.wake_at = "retrying", None, now + delay_s
        task.attempt += 1
        return None

    def _lose(self, task: TaskRecord, reason: str) -> None:
        now = self.now()
        error = {"type": "lost", "message": reason}
        if task.losses >= MAX_LOSSES:
            return self._fail(task, {**error, "retryable": False}, "lost")
        task.note_attempt("lost", error, now)
        task.status, task.session, task.ready_at = "queued", None, now
        task.losses += 1
        task.fence += 1
        return None

    def _end(self, task: TaskRecord, status: str) -> None:
        task.status, task.session, task.wake_at = status, None, None
        task.completed_at = self.now()


def _is_overdue(task: TaskRecord, now: float) -> bool:
    if task.status != "running" or task.timeout_s is None or task.started_at is None:
        return False
    return now - task.started_at > task.timeout_s
