"""What agents of one run share in the in-memory platform: keys with versions, and messages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from typing import Any

from opscore_sdk.testing.records import MessageRecord, SessionRecord, new_id, shown_time
from opscore_sdk.testing.refusals import Refused

#: Bounds of one run, as the platform has them by default.
MAX_ENTRIES = 1000
MAX_VALUE_BYTES = 64 * 1024
MAX_RUN_BYTES = 2 * 1024 * 1024
MAX_MESSAGES = 1000
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+~-]{0,199}")


class Sharing:
    """Contexts and messages. Not safe for threads: the platform holds a lock around it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._now = clock
        self._entries: dict[tuple[str, str], dict[str, Any]] = {}
        self._versions: dict[str, int] = {}
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
            raise Refused(404, f"The run's context has no entry {key!r}.") from None

    def put(
        self, run_id: str, key: str, said: dict[str, Any], actor: str
    ) -> tuple[dict[str, Any], bool]:
        """Write an entry; return it and whether it is new.

        Refused: the key, a bound, or it has another version than `if_version`.
        """
        if not _KEY.fullmatch(key):
            rule = "1 to 200 letters, digits and '_.:@+~-', a letter, digit or '_' first"
            raise Refused(400, "The key is not valid.", {"key": f"a key is {rule}"})
        _bounded(said["value"], "value")
        self._check_version(run_id, key, said.get("if_version"))
        self._check_room(run_id, key, said["value"])
        entry = {
            "key": key,
            "version": self._next_version(run_id),
            "value": said["value"],
            "updated_at": shown_time(self._now()),
            "updated_by": actor,
        }
        is_new = (run_id, key) not in self._entries
        self._entries[run_id, key] = entry
        return entry, is_new

    def delete(self, run_id: str, key: str, if_version: int | None) -> None:
        """Delete an entry. Refused: there is none, or it has another version."""
        self._check_version(run_id, key, if_version)
        self.get(run_id, key)
        del self._entries[run_id, key]

    def _check_version(self, run_id: str, key: str, wanted: int | None) -> None:
        present = self._entries.get((run_id, key), {}).get("version", 0)
        if wanted is None or wanted == present:
            return
        state = f"has version {present}" if present else "does not exist"
        detail = f"The entry {key!r} {state}."
        raise Refused(409, detail, code="version_conflict", version=present)

    def _check_room(self, run_id: str, key: str, value: Any) -> None:
        others = [entry for entry in self.entries(run_id) if entry["key"] != key]
        if len(others) >= MAX_ENTRIES:
            raise Refused(413, f"The run's context has {MAX_ENTRIES} entries already.")
        size = sum(_size(entry["value"]) for entry in others) + _size(value)
        if size > MAX_RUN_BYTES:
            raise Refused(413, f"All values would have {size} bytes, more than {MAX_RUN_BYTES}.")

    def _next_version(self, run_id: str) -> int:
        # One count for the whole run: a version never comes back, not even after a delete.
        self._versions[run_id] = self._versions.get(run_id, 0) + 1
        return self._versions[run_id]

    # Messages

    def send(self, run_id: str, said: dict[str, Any], sender: str) -> MessageRecord:
        """Keep a message until it is acknowledged or too old. Refused: a bound."""
        _bounded(said.get("body"), "body")
        if len([m for m in self.of(run_id) if m.acknowledged_at is None]) >= MAX_MESSAGES:
            raise Refused(413, f"The run has {MAX_MESSAGES} messages that nobody acknowledged.")
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

    def of(self, run_id: str) -> list[MessageRecord]:
        """Return the messages of a run that are not too old."""
        now = self._now()
        mine = [message for message in self.messages.values() if message.run_id == run_id]
        return [message for message in mine if message.expires_at > now]

    def waiting(self) -> Collection[MessageRecord]:
        """Return the messages that nobody has acknowledged."""
        return [one for one in self.messages.values() if one.acknowledged_at is None]

    def receive(self, session: SessionRecord, limit: int, lease_s: float) -> list[MessageRecord]:
        """Lease the oldest messages for the session's agent."""
        now, agent = self._now(), session.agent
        fitting = [
            message
            for message in self.waiting()
            if message.expires_at > now
            and message.is_free(now)
            and (message.agent == agent.name or message.capability in agent.capabilities)
        ][:limit]
        for message in fitting:
            message.leased_until, message.receipt = now + lease_s, new_id(now)
            message.session, message.deliveries = session, message.deliveries + 1
        return fitting

    def put_back(self, message: MessageRecord, receipt: str) -> None:
        """Give back a message whose receiver never learned of it."""
        if message.receipt == receipt and message.acknowledged_at is None:
            message.leased_until, message.receipt = 0.0, ""
            message.deliveries -= 1

    def acknowledge(self, message_id: str, receipt: str) -> None:
        """Keep that a message is done. Refused: it is gone, or somebody else has it by now."""
        message = self.messages.get(message_id)
        if message is None:
            raise Refused(404, f"There is no message {message_id}; perhaps it has expired.")
        if message.receipt != receipt:
            detail = "The lease was over and the message was handed out again; drop the work."
            raise Refused(409, detail)
        message.acknowledged_at = message.acknowledged_at or self._now()


def _bounded(value: Any, what: str) -> None:
    if _size(value) > MAX_VALUE_BYTES:
        raise Refused(413, f"The {what} has more than {MAX_VALUE_BYTES} bytes as JSON.")


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
