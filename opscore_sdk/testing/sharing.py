"""What agents of one run share in the in-memory platform: keys with versions, and messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opscore_sdk.testing.records import MessageRecord, SessionRecord, new_id, shown_time
from opscore_sdk.testing.refusals import Refused


class Sharing:
    """Contexts and messages. Not safe for threads: the platform holds a lock around it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._now = clock
        self._entries: dict[tuple[str, str], dict[str, Any]] = {}
        self.messages: dict[str, MessageRecord] = {}

    def entries(self, run_id: str) -> list[dict[str, Any]]:
        """Return a run's entries, by key."""
        mine = [(key, entry) for (run, key), entry in self._entries.items() if run == run_id]
        return [entry for _, entry in sorted(mine)]

    def get(self, run_id: str, key: str) -> dict[str, Any]:
        """Return one entry. Refused: there is none."""
        try:
            return self._entries[run_id, key]
        except KeyError:
            raise Refused(404, f"The run has no shared key {key!r}.") from None

    def put(self, run_id: str, key: str, said: dict[str, Any], actor: str) -> dict[str, Any]:
        """Write an entry. Refused: it has another version than `if_version`."""
        present = self._entries.get((run_id, key), {}).get("version", 0)
        wanted = said.get("if_version")
        if wanted is not None and wanted != present:
            detail = f"The shared key {key!r} has version {present}, not {wanted}."
            raise Refused(409, detail, code="version_conflict")
        entry = {
            "key": key,
            "version": present + 1,
            "value": said["value"],
            "updated_at": shown_time(self._now()),
            "updated_by": actor,
        }
        self._entries[run_id, key] = entry
        return entry

    def delete(self, run_id: str, key: str) -> None:
        """Delete an entry. Refused: there is none."""
        self.get(run_id, key)
        del self._entries[run_id, key]

    def send(self, run_id: str, said: dict[str, Any], sender: str) -> MessageRecord:
        """Keep a message until it is acknowledged or too old."""
        now, to = self._now(), said["to"]
        message = MessageRecord(
            id=new_id(now),
            run_id=run_id,
            agent=to.get("agent", ""),
            capability=to.get("capability", ""),
            topic=said.get("topic", ""),
            body=said.get("body"),
            sender=sender,
            sent_at=now,
            expires_at=now + said.get("ttl_s", 3600),
        )
        self.messages[message.id] = message
        return message

    def receive(self, session: SessionRecord, limit: int, lease_s: float) -> list[MessageRecord]:
        """Lease the oldest messages for the session's agent."""
        now, agent = self._now(), session.agent
        fitting = [
            message
            for message in self.messages.values()
            if message.expires_at > now >= message.leased_until
            and (message.agent == agent.name or message.capability in agent.capabilities)
        ][:limit]
        for message in fitting:
            message.leased_until, message.receipt = now + lease_s, new_id(now)
        return fitting

    def acknowledge(self, message_id: str, receipt: str) -> None:
        """Forget a message. Refused: it is gone, or somebody else has it by now."""
        message = self.messages.get(message_id)
        if message is None:
            raise Refused(404, f"There is no message {message_id}.")
        if message.receipt != receipt:
            raise Refused(409, "This receipt is old: the message was delivered again.")
        del self.messages[message_id]
