"""What the in-memory platform remembers, and how the API shows it."""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

ENDED = frozenset({"completed", "failed", "cancelled"})
#: A task whose agents died so often is given up, as the platform does.
MAX_LOSSES = 5
_counter = itertools.count()


def new_id(now: float) -> str:
    """Return a UUIDv7: later ones are greater."""
    stamp = (int(now * 1000) << 80) | (7 << 76) | ((next(_counter) & 0xFFF) << 64)
    return str(UUID(int=stamp | (2 << 62) | secrets.randbits(62)))


def shown_time(seconds: float | None) -> str | None:
    """Return a time as the API writes it."""
    if seconds is None:
        return None
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")


@dataclass
class AgentRecord:
    """A registered agent."""

    id: str
    name: str
    kind: str
    capabilities: list[str]
    labels: list[str]
    created_at: float
    changed_at: float
    status: str = "initializing"
    desired: str = "running"
    reason: str = ""
    paused: bool = False
    concurrency: int | None = None

    @property
    def takes_work(self) -> bool:
        """Whether nobody has paused or stopped it."""
        return self.desired == "running" and not self.paused

    def can_do(self, task: TaskRecord) -> bool:
        """Whether it has what a task asks for."""
        return task.capability in self.capabilities and set(task.requires) <= set(self.labels)

    def as_dict(self, running: int) -> dict[str, Any]:
        """Return it as a list shows it."""
        busy = self.status == "active" and running
        return {
            "id": self.id,
            "name": self.name,
            "kind": self.kind,
            "spec": "",
            "host": "",
            "capabilities": self.capabilities,
            "labels": self.labels,
            "concurrency": self.concurrency,
            "status": "busy" if busy else self.status,
            "reason": self.reason,
            "desired": self.desired,
            "paused": self.paused,
            "running_tasks": running,
            "usage": None,
            "restarts": 0,
            "created_at": shown_time(self.created_at),
            "changed_at": shown_time(self.changed_at),
        }


@dataclass
class SessionRecord:
    """One life of an agent."""

    id: str
    agent: AgentRecord
    host: str
    pid: int | None
    started_at: float
    seen_at: float
    ended_at: float | None = None
    end_reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as its agent shows it."""
        return {
            "id": self.id,
            "host": self.host,
            "pid": self.pid,
            "generation": 0,
            "queues": [],
            "started_at": shown_time(self.started_at),
            "ready_at": shown_time(self.started_at),
            "seen_at": shown_time(self.seen_at),
            "ended_at": shown_time(self.ended_at),
            "end_reason": self.end_reason,
        }


@dataclass
class TaskRecord:
    """A task, which is a run of its own."""

    id: str
    run_id: str
    key: str
    capability: str
    inputs: dict[str, Any]
    created_at: float
    requires: list[str] = field(default_factory=list)
    prefers: dict[str, int] = field(default_factory=dict)
    sticky: str = ""
    priority: int = 5
    retry: dict[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None
    status: str = "queued"
    run_paused: bool = False
    attempt: int = 1
    losses: int = 0
    fence: int = 0
    session: SessionRecord | None = None
    last_session: SessionRecord | None = None
    """Of the present or last attempt."""
    ready_at: float = 0.0
    started_at: float | None = None
    completed_at: float | None = None
    wake_at: float | None = None
    result: Any = None
    error: dict[str, Any] | None = None
    attempts: list[dict[str, Any]] = field(default_factory=list)
    progress: dict[str, Any] | None = None
    logs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def sticky_to(self) -> tuple[str, frozenset[str], str]:
        """What its sticky key is one of: the same text of other labels is another key."""
        return self.capability, frozenset(self.requires), self.sticky

    @property
    def has_ended(self) -> bool:
        """Whether the status never changes again."""
        return self.status in ENDED

    @property
    def traceparent(self) -> str:
        """W3C trace context: a trace for each run, a span for each attempt."""
        span = hashlib.sha256(f"{self.id}/{self.fence}".encode()).hexdigest()[:16]
        return f"00-{UUID(self.run_id).hex}-{span}-01"

    def note_attempt(self, outcome: str, error: Mapping[str, Any] | None, now: float) -> None:
        """Keep a try that did not complete."""
        self.attempts.append(
            {
                "number": self.attempt,
                "outcome": outcome,
                "session_id": self.session.id if self.session else None,
                "error": None if error is None else dict(error),
                "started_at": shown_time(self.started_at),
                "ended_at": shown_time(now),
            }
        )

    def as_claimed(self) -> dict[str, Any]:
        """Return what an executor gets."""
        return {
            "id": self.id,
            "run_id": self.run_id,
            "key": self.key,
            "capability": self.capability,
            "attempt": self.attempt,
            "fence": self.fence,
            "priority": self.priority,
            "timeout_s": self.timeout_s,
            "inputs": self.inputs,
            "idempotency_key": self.id,
            "traceparent": self.traceparent,
        }

    def as_row(self) -> dict[str, Any]:
        """Return it as a list shows it."""
        held = self.session or self.last_session
        agent = {"id": held.agent.id, "name": held.agent.name} if held else None
        return {
            "id": self.id,
            "run_id": self.run_id,
            "key": self.key,
            "uses": "agent",
            "capability": self.capability,
            "requires": self.requires,
            "priority": self.priority,
            "status": self.status,
            "attempt": self.attempt,
            "losses": self.losses,
            "join": "all_success",
            "phase": "main",
            "waits_for": "",
            "item_index": None,
            "item_count": None,
            "agent": agent,
            "error": self.error,
            "created_at": shown_time(self.created_at),
            "ready_at": shown_time(self.ready_at),
            "started_at": shown_time(self.started_at),
            "completed_at": shown_time(self.completed_at),
            "wake_at": shown_time(self.wake_at),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return everything about it."""
        leased = self.status == "running" and self.timeout_s and self.started_at
        return {
            **self.as_row(),
            "retry": self.retry,
            "timeout_s": self.timeout_s,
            "queue": f"memory.{self.capability}",
            "flow": {},
            "names": {},
            "child_run_id": None,
            "session_id": self.session.id if self.session else None,
            "lease_until": shown_time(self.started_at + self.timeout_s)
            if leased and self.started_at and self.timeout_s
            else None,
            "inputs": self.inputs,
            "outputs": None,
            "result": self.result,
            "attempts": self.attempts,
            "progress": self.progress,
            "for_agent": None,
            "for_until": None,
            "routing": None,
        }

    def as_run(self, *, whole: bool) -> dict[str, Any]:
        """Return its run, as a list or on its own."""
        status = self.status if self.has_ended else "paused" if self.run_paused else "running"
        row = {
            "id": self.run_id,
            "workflow": "",
            "version": "",
            "status": status,
            "priority": self.priority,
            "fairness_key": "",
            "task_count": 1,
            "phase": "main",
            "parent_task_id": None,
            "rerun_of": None,
            "error": self.error if self.has_ended else None,
            "created_at": shown_time(self.created_at),
            "completed_at": shown_time(self.completed_at),
        }
        if whole:
            task = {**self.as_row(), "needs": [], "successors": []}
            row |= {"inputs": {}, "outputs": None, "waits_for_place": None, "tasks": [task]}
            row |= {"context_entries": 0, "open_messages": 0}
        return row


@dataclass
class MessageRecord:
    """A message that nobody has acknowledged yet."""

    id: str
    run_id: str
    agent: str
    capability: str
    topic: str
    body: Any
    sender: str
    sent_at: float
    expires_at: float
    leased_until: float = 0.0
    receipt: str = ""
    session: SessionRecord | None = None
    """Who holds it or held it last."""
    deliveries: int = 0
    acknowledged_at: float | None = None

    def is_free(self, now: float) -> bool:
        """Whether nobody holds it: never taken, its lease is over, or its holder has gone."""
        has_gone = self.session is not None and self.session.ended_at is not None
        return now >= self.leased_until or has_gone

    def as_row(self) -> dict[str, Any]:
        """Return it as a list shows it."""
        return {
            "id": self.id,
            "to": {"agent": self.agent} if self.agent else {"capability": self.capability},
            "topic": self.topic,
            "body": self.body,
            "sender": self.sender,
            "sent_at": shown_time(self.sent_at),
            "expires_at": shown_time(self.expires_at),
            "lease_until": shown_time(self.leased_until or None),
            "deliveries": self.deliveries,
            "acknowledged_at": shown_time(self.acknowledged_at),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return it as its receiver gets it."""
        kind, _, name = self.sender.partition(":")
        return {
            "id": self.id,
            "receipt": self.receipt,
            "run_id": self.run_id,
            "topic": self.topic,
            "body": self.body,
            "sender": self.sender,
            "sent_at": shown_time(self.sent_at),
            "deliveries": self.deliveries,
            "reply_to": {"agent": name} if kind == "agent" else None,
        }
