"""manage.py push: send tasks to agents and events to webhooks until SIGTERM (finish), twice: at once."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Any

import psycopg
from django.core.management.base import BaseCommand, CommandError

from opscore.config import load_config
from tasks.pusher import Pusher
from webhooks.courier import Courier


class Command(BaseCommand):
    """Signals and the loop, nothing else."""

    help = (
        "Send tasks to agents of kind http, and events to webhooks. One such process sends the "
        "tasks, others stand by; all of them send events."
    )

    def handle(self, *_: Any, **__: Any) -> None:
        """Push until told to stop."""
        try:
            asyncio.run(_run())
        except psycopg.Error as error:
            raise CommandError(f"The database went away: {str(error).strip()}") from error


async def _run() -> None:
    pusher, courier = Pusher(load_config().node_name or socket.gethostname()), Courier()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, pusher, courier)
    mail = asyncio.create_task(courier.run())
    try:
        await pusher.run()
    except BaseException:
        # What it has open is sent again by the next one.
        mail.cancel()
        raise
    courier.stop()
    await mail


def _stop(pusher: Pusher, courier: Courier) -> None:
    pusher.stop()
    courier.stop()
