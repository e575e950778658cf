"""What the platform answers to executors, and what the agents of a run share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from opscore_sdk.wire import Wire


@dataclass(frozen=True, kw_only=True)
class Entry(Wire):
    """One key of the context that the agents of a run share."""

    key: str
    value: Any = None
    version: int = 1
    """Give it as `if_version` to write only over what was read."""
    updated_at: datetime | None = None
    updated_by: str = ""


@dataclass(frozen=True, kw_only=True)
class Message(Wire):
    """Something that an agent of a run was told."""

    id: str
    receipt: str
    """Proof that this session has it; `ack_message` asks for it."""
    run_id: str = ""
    topic: str = ""
    body: Any = None
    sender: str = ""
    """`agent:<name>` or `key:<name>`."""
    sent_at: datetime | None = None
    deliveries: int = 1
    """Above 1: it was handed out before."""
    reply_to: Mapping[str, str] | None = None
    """`agent` of an answer, as `send(body, **message.reply_to)`; None: no agent sent it."""


@dataclass(frozen=True, kw_only=True)
class StartedSession(Wire):
    """A new session, and how its executor should behave."""

    session_id: str
    heartbeat_s: float = 10.0
    """Beat at least this often."""
    claim_wait_max_s: float = 30.0


@dataclass(frozen=True, kw_only=True)
class ClaimedTask(Wire):
    """One attempt that a session holds now."""

    id: str
    fence: int
    """Send it with every report and log."""
    run_id: str = ""
    key: str = ""
    capability: str = ""
    attempt: int = 1
    priority: int = 5
    timeout_s: float | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str = ""
    """The same for every attempt of the task."""
    traceparent: str = ""
    """W3C trace context: a trace for each run, a span for each attempt."""

    @property
    def proof(self) -> str:
        """What `attempt` of calls that write for this attempt asks for."""
        return f"{self.id}/{self.fence}"
