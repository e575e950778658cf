"""Commands about what the agents of a run share: its context and its messages."""

from __future__ import annotations

import argparse
from typing import Any

from opscore_sdk import report
from opscore_sdk.client import Client
from opscore_sdk.statuses import DONE, UsageError
from opscore_sdk.verbs import as_json

_ENTRIES = {"key": "key", "version": "version", "by": "updated_by", "value": "value"}
_MESSAGES = {
    "message": "id",
    "to": "to",
    "topic": "topic",
    "from": "sender",
    "sent": "sent_at",
    "delivered": "deliveries",
    "done": "acknowledged_at",
    "body": "body",
}


def context(client: Client, options: argparse.Namespace) -> int:
    """Show the shared context of a run, or show, write or delete one entry."""
    if options.key is None:
        return _all(client, options)
    if options.set is not None and options.delete:
        raise UsageError("Say either --set or --delete.")
    if options.set is not None:
        return _put(client, options)
    if options.delete:
        client.delete_shared(options.run, options.key, if_version=options.if_version)
        report.done(f"{options.key} deleted", None, as_json=options.json)
        return DONE
    if options.if_version is not None:
        raise UsageError("--if-version goes with --set or --delete.")
    entry = client.get_shared(options.run, options.key)
    report.value(entry.raw if options.json else entry.value)
    return DONE


def _all(client: Client, options: argparse.Namespace) -> int:
    if options.set is not None or options.delete or options.if_version is not None:
        raise UsageError("Say which KEY.")
    rows = [entry.raw for entry in client.shared(options.run)]
    report.rows(rows, _ENTRIES, "This run shares nothing.", as_json=options.json)
    return DONE


def _put(client: Client, options: argparse.Namespace) -> int:
    value = as_json(options.set, "--set")
    entry = client.put_shared(options.run, options.key, value, if_version=options.if_version)
    report.done(f"{entry.key} version {entry.version}", entry.raw, as_json=options.json)
    return DONE


def messages(client: Client, options: argparse.Namespace) -> int:
    """Show the messages between the agents of a run, newest first."""
    rows = client.messages(options.run, limit=options.limit)
    shown = rows if options.json else [{**row, "to": _receiver(row["to"])} for row in rows]
    report.rows(shown, _MESSAGES, "This run has no messages.", as_json=options.json)
    return DONE


def _receiver(to: dict[str, Any]) -> str:
    return str(to.get("agent") or f"any {to.get('capability')}")


def send(client: Client, options: argparse.Namespace) -> int:
    """Send a message to an agent of a run, or to one agent of a capability."""
    if (options.agent is None) == (options.capability is None):
        raise UsageError("Say either --agent NAME or --capability WORD.")
    message_id = client.send_message(
        options.run,
        as_json(options.body, "BODY"),
        agent=options.agent,
        capability=options.capability,
        topic=options.topic,
        ttl_s=options.ttl_s,
    )
    report.done(f"message {message_id} sent", {"id": message_id}, as_json=options.json)
    return DONE
