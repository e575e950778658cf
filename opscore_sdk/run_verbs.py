"""Commands about runs: list them, watch one."""

from __future__ import annotations

import argparse

from opscore_sdk import report, waiting
from opscore_sdk.client import Client
from opscore_sdk.statuses import DONE


def runs(client: Client, options: argparse.Namespace) -> int:
    """Show the newest top runs, or all of them."""
    parent = None if options.all else "none"
    found = client.runs(
        parent=parent, limit=options.limit, status=options.status, workflow=options.workflow
    )
    narrowed = options.status or options.workflow
    empty = "There are no such runs." if narrowed else None
    report.runs(found, as_json=options.json, empty=empty)
    return DONE


def watch(client: Client, options: argparse.Namespace) -> int:
    """Show a run until it has ended, then its outputs; the status says how it ended."""
    # An id that is not known must not wait for a platform that does not answer.
    client.run(options.run)
    return waiting.wait(
        client, options.run, options, lambda run: report.ended(run, as_json=options.json)
    )
