"""Commands about webhooks: each takes the client and its options."""

from __future__ import annotations

import argparse

from opscore_sdk import report
from opscore_sdk.client import Client
from opscore_sdk.statuses import DONE, UsageError

_WEBHOOKS = {
    "name": "name",
    "enabled": "enabled",
    "url": "url",
    "events": "events",
    "last": "last_status",
    "error": "last_error",
    "disabled": "disabled_reason",
}
_DELIVERIES = {
    "id": "id",
    "event": "event",
    "status": "status",
    "tries": "tries",
    "last": "last_status",
    "error": "last_error",
    "due": "due_at",
    "created": "created_at",
}


def webhooks(client: Client, options: argparse.Namespace) -> int:
    """Show the webhooks, or what one of them was told."""
    if options.name:
        found = client.deliveries(options.name, limit=options.limit)
        report.rows(found, _DELIVERIES, "Nothing was told yet.", as_json=options.json)
    else:
        found = client.webhooks(limit=options.limit)
        report.rows(found, _WEBHOOKS, "There are no webhooks.", as_json=options.json)
    return DONE


def webhook(client: Client, options: argparse.Namespace) -> int:
    """Make, change, test or delete a webhook."""
    name, change = options.name, options.change
    if change in {"create", "rotate"}:
        made = _create(client, options) if change == "create" else client.rotate_webhook(name)
        report.done(f"{made['secret']} (shown only now)", made, as_json=options.json)
    elif change in {"enable", "disable"}:
        found = client.change_webhook(name, enabled=change == "enable")
        report.done(f"{name} is {change}d", found, as_json=options.json)
    elif change == "test":
        sent = client.test_webhook(name)
        report.done(f"{name} is sent delivery {sent['id']}", sent, as_json=options.json)
    else:
        client.delete_webhook(name)
        report.done(f"{name} is deleted", {"name": name}, as_json=options.json)
    return DONE


def redeliver(client: Client, options: argparse.Namespace) -> int:
    """Send a delivery again."""
    found = client.redeliver(options.name, options.delivery)
    report.done(f"{found['event']} is sent again", found, as_json=options.json)
    return DONE


def _create(client: Client, options: argparse.Namespace) -> dict[str, object]:
    if not options.url:
        raise UsageError("create needs --url, the address that is told")
    more = {"workflow": options.workflow} if options.workflow else {}
    return client.create_webhook(options.name, options.url, events=options.event or ["*"], **more)
