"""manage.py push: send tasks to agents of kind http until SIGTERM (finish), twice: at once."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Any

import psycopg
from django.core.management.base import BaseCommand, CommandError

from opscore.config import load_config
from tasks.pusher import Pusher


class Command(BaseCommand):
    """Signals and the loop, nothing else."""

    help = "Send tasks to agents of kind http. One such process works, others stand by."

    def handle(self, *_: Any, **__: Any) -> None:
        """Push until told to stop."""
        try:
            asyncio.run(_run())
        except psycopg.Error as error:
            raise CommandError(f"The database went away: {str(error).strip()}") from error


async def _run() -> None:
    pusher = Pusher(load_config().node_name or socket.gethostname())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, pusher.stop)
    await pusher.run()
