"""`manage.py flower`: Celery's monitor, behind a password, for looking only."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

_NEVER_ASKS = ("/metrics",)


class Command(BaseCommand):
    """Runs Flower without the pages that change things or that never ask for the password."""

    help = "Run Flower (OPSCORE_EVENTS=1 makes the agents send what it shows)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare where it listens."""
        parser.add_argument("--address", default="127.0.0.1", help="default: loopback")
        parser.add_argument("--port", type=int, default=5555, help="default: 5555")

    def handle(self, *_: Any, address: str, port: int, **__: Any) -> None:
        """Run until a signal; refuses to start without FLOWER_BASIC_AUTH=user:password."""
        if ":" not in os.environ.get("FLOWER_BASIC_AUTH", ""):
            raise CommandError("Set FLOWER_BASIC_AUTH=user:password; Flower is not run without.")
        from flower.urls import handlers  # noqa: PLC0415 - needs tornado, only here

        from opscore.celery import app  # noqa: PLC0415

        # In place, because Flower's application holds this very list.
        handlers[:] = [entry for entry in handlers if not _is_left_out(entry)]
        app.start(["flower", f"--address={address}", f"--port={port}", "--logging=warning"])


def _is_left_out(entry: Any) -> bool:
    """Tell whether a route changes something (Celery's own revoke, shutdown, apply) or leaks."""
    pattern, handler = (
        (entry[0], entry[1])
        if isinstance(entry, tuple)
        else (entry.matcher.regex.pattern, entry.handler_class)
    )
    changes = pattern.startswith("/api/") and "post" in vars(handler)
    return changes or pattern.startswith(_NEVER_ASKS)
