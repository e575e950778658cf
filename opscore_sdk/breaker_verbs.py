"""Commands about circuit breakers: each takes the client and its options."""

from __future__ import annotations

import argparse
from typing import Any

from opscore_sdk import report
from opscore_sdk.client import Client
from opscore_sdk.statuses import DONE

_COLUMNS = {
    "kind": "kind",
    "name": "name",
    "state": "state",
    "until": "until",
    "failures": "failures",
    "calls": "calls",
    "reason": "reason",
    "by": "changed_by",
}


def breakers(client: Client, options: argparse.Namespace) -> int:
    """Show the circuit breakers."""
    found = client.breakers(limit=options.limit)
    report.rows(found, _COLUMNS, "No breaker ever counted a failure.", as_json=options.json)
    return DONE


def breaker(client: Client, options: argparse.Namespace) -> int:
    """Open or close a circuit breaker."""
    kind = "agent" if options.agent else "resource"
    if options.change == "open":
        found = client.open_breaker(kind, options.name, reason=options.reason, for_s=options.for_s)
    else:
        found = client.close_breaker(kind, options.name)
    report.done(_said(found), found, as_json=options.json)
    return DONE


def _said(found: dict[str, Any]) -> str:
    until = f" until {found['until']}" if found["until"] else ""
    return f"{found['kind']} {found['name']} {found['state']}{until}"
