"""What a handler shares with the other agents of its run: a context of keys, and messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from agents.errors import HandlerError


class VersionConflictError(HandlerError):
    """Somebody else changed the entry: read it again and decide anew.

    Left uncaught it fails the attempt, which is then tried again as its policy says.
    """

    def __init__(self, message: str, version: int) -> None:
        super().__init__(message, type="version_conflict")
        self.version = version
        """The present version; 0: there is no such entry."""


@dataclass(frozen=True)
class Entry:
    """One value of a run's shared context."""

    key: str
    version: int
    """Rises with every write, also when an entry is deleted and made again."""
    value: Any
    updated_at: datetime
    updated_by: str
    """`agent:<name>` or, for writes from outside of the run's attempts, `key:<name>`."""

    def as_dict(self) -> dict[str, Any]:
        """Return what goes over the wire."""
        return {**self.__dict__, "updated_at": self.updated_at.isoformat()}


@dataclass(frozen=True)
class Received:
    """One message that its receiver now holds, until its lease is over."""

    id: UUID
    receipt: UUID
    """Proves who holds it: give it back with the acknowledgement."""
    run_id: UUID
    topic: str
    body: Any
    sender: str
    """`agent:<name>` or `key:<name>`."""
    sent_at: datetime
    deliveries: int
    """How often it was handed out; above 1 somebody had it before and did not acknowledge it."""

    @property
    def reply_to(self) -> dict[str, str] | None:
        """Where an answer goes, as `to`; None when no agent sent it."""
        kind, _, name = self.sender.partition(":")
        return {"agent": name} if kind == "agent" else None

    def as_dict(self) -> dict[str, Any]:
        """Return what goes over the wire."""
        return {
            **self.__dict__,
            "id": str(self.id),
            "receipt": str(self.receipt),
            "run_id": str(self.run_id),
            "sent_at": self.sent_at.isoformat(),
            "reply_to": self.reply_to,
        }


class Shared(Protocol):
    """The durable, versioned key-value context of one run.

    Every method raises HandlerError: keys, values or bounds that are not valid (final), an
    attempt or a run that is over.
    """

    def get(self, key: str) -> Entry | None:
        """Return an entry, or None."""

    def entries(self) -> list[Entry]:
        """Return all entries, by key."""

    def put(self, key: str, value: Any, if_version: int | None = None) -> Entry:
        """Write a JSON value. `if_version`: only over that version; 0: only when there is none.

        Raises VersionConflictError. After a lost connection to the database it may meet its own
        write: what it guards happens at least once, as the handler itself.
        """

    def delete(self, key: str, if_version: int | None = None) -> bool:
        """Remove an entry; return whether there was one. Raises VersionConflictError."""


class Post(Protocol):
    """The messages of one run: durable, at least once, until their time to live is over."""

    def send(self, to: Mapping[str, str], topic: str, body: Any, ttl_s: float) -> UUID:
        """Send to `{"agent": name}`, or to one agent of `{"capability": word}`; return the id.

        Raises HandlerError.
        """

    def receive(self, limit: int, lease_s: float) -> list[Received]:
        """Take messages to this agent or to one of its capabilities, oldest first.

        What is not acknowledged within `lease_s` seconds comes again, perhaps elsewhere.
        """

    def acknowledge(self, message: Received) -> bool:
        """Say that a message is done; False: its lease was over and it was handed out again."""


class Alone:
    """What a handler has that is called outside of a run: every use is an error."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python itself asks, to copy it for example
            raise AttributeError(name)
        raise HandlerError(
            "Outside of a run there are no shared context and no messages; call the handler "
            "through the engine (in tests: the fixture `rehearsal`).",
            type="no_run",
            retryable=False,
        )
