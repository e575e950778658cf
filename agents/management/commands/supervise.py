"""manage.py supervise: run this host's agents until SIGTERM (drain), twice: at once."""

from __future__ import annotations

import signal
import socket
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agents import specs
from agents.supervisor.controller import Controller
from opscore.config import load_config
from opscore.errors import OpsCoreError


class Command(BaseCommand):
    """Signals and the loop, nothing else."""

    help = "Run this host's agents: those of its file and those that the API asks for."

    def handle(self, *_: Any, **__: Any) -> None:
        """Supervise until told to stop."""
        config = load_config()
        try:
            controller = Controller(
                config, config.node_name or socket.gethostname(), specs.load(config.agents_file)
            )
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: controller.stop())
            controller.run()
        except OpsCoreError as error:
            raise CommandError(str(error)) from error
