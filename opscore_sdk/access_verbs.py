"""Commands about API keys and the audit log: each takes the client and its options."""

from __future__ import annotations

import argparse

from opscore_sdk import report
from opscore_sdk.client import Client
from opscore_sdk.statuses import DONE, FAILED

_KEYS = {
    "name": "name",
    "prefix": "prefix",
    "state": "state",
    "scopes": "scopes",
    "agent": "agent",
    "last used": "last_used_at",
    "expires": "expires_at",
}
_AUDIT = {
    "at": "at",
    "actor": "actor",
    "action": "action",
    "target": "target",
    "status": "status",
    "address": "address",
}


def keys(client: Client, options: argparse.Namespace) -> int:
    """Show the API keys."""
    rows = client.keys(limit=options.limit)
    report.rows(rows, _KEYS, "There are no keys.", as_json=options.json)
    return DONE


def key(client: Client, options: argparse.Namespace) -> int:
    """Make, rotate or revoke an API key."""
    if options.change == "revoke":
        client.revoke_key(options.name)
        report.done(f"{options.name} is revoked", {"name": options.name}, as_json=options.json)
        return DONE
    if options.change == "rotate":
        made = client.rotate_key(options.name, overlap_s=options.overlap)
    else:
        made = client.create_key(options.name, scopes=options.scope, agent=options.agent)
    report.done(f"{made['key']} (shown only now)", made, as_json=options.json)
    return DONE


def audit(client: Client, options: argparse.Namespace) -> int:
    """Show the audit log."""
    if options.verify:
        return verify(client, options)
    rows = client.audit(limit=options.limit)
    report.rows(rows, _AUDIT, "Nothing is recorded yet.", as_json=options.json)
    return DONE


def verify(client: Client, options: argparse.Namespace) -> int:
    """Follow the chain of the audit log; FAILED where it is broken."""
    found = client.verify_audit()
    said = (
        f"{found['checked']} rows are whole; head {found['last']}:{found['head']}"
        if found["ok"]
        else f"row {found['broken']}: {found['problem']}"
    )
    report.done(said, found, as_json=options.json)
    return DONE if found["ok"] else FAILED
