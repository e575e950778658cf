"""Breaks the engine on purpose, to show that the invariants notice: `CHAOS_BREAK` says how.

A Django app of the tests, installed by `broken_settings` only.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from django.apps import AppConfig


class Sabotage(AppConfig):
    """Breaks one thing when Django is set up."""

    name = "tests.chaos"
    label = "chaos"
    path = str(Path(__file__).parent)

    def ready(self) -> None:
        """Break it."""
        BREAKS[os.environ["CHAOS_BREAK"]]()


def without_reconciler() -> None:
    """Repair nothing: neither at a tick, nor when a session ends."""
    from tasks import reconcile

    vars(reconcile).update(STEPS=(), give_back=lambda session_ids: False)


def without_fence() -> None:
    """Accept every report, however old its fence is."""
    from tasks.transitions import work

    guard = re.compile(r"h\.fence = x\.fence AND h\.status [^\n]+")
    broken, found = guard.subn("h.status <> 'pending'", work.COMPLETE)
    # The counters may not fall below zero: the table's own guard must be passed too.
    for column, less in (("pending", "t.pending - d.n"), ("open_sinks", "r.open_sinks - s.n")):
        found += broken.count(f"{column} = {less},")
        broken = broken.replace(f"{column} = {less},", f"{column} = greatest({less}, 0),")
    if found != 3:
        raise LookupError("COMPLETE is guarded in another way now; sabotage that one")
    vars(work)["COMPLETE"] = broken


BREAKS = {"reconciler": without_reconciler, "fence": without_fence}
