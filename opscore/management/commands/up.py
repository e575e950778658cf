"""`manage.py up`: the whole platform in the foreground until Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from pydantic import ValidationError

from opscore.config import Config, not_ours, said
from opscore.embedded import ChildError
from opscore.errors import OpsCoreError
from opscore.platform import Platform

_STEP_S = 0.2


class Command(BaseCommand):
    """Runs services, web server, beat and supervisor; stops them all when it ends."""

    help = "Run the whole platform in the foreground until Ctrl-C or SIGTERM."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options; everything else is set by OPSCORE_* variables."""
        parser.add_argument("--port", type=int, help="port of the web server; 0 picks a free one")
        parser.add_argument("--flower", action="store_true", help="start Flower, on loopback")

    def handle(self, *_: Any, port: int | None, flower: bool, **__: Any) -> None:
        """Run until a signal; a second one does not wait for tasks to finish."""
        asked: list[int] = []

        def interrupt(number: int, _: Any) -> None:
            # Kept as well: an exception is lost where Python cannot pass it on, in `__del__`.
            asked.append(number)
            raise KeyboardInterrupt

        # SIGINT too: a shell without job control starts its background jobs deaf to it.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, interrupt)
        try:
            config = Config() if port is None else Config(port=port)
            with Platform(config, flower=flower, say=self._say) as platform:
                self._welcome(platform)
                while not asked:
                    platform.step()
                    time.sleep(_STEP_S)
        except KeyboardInterrupt:
            pass
        except ValidationError as error:
            raise CommandError(said(error)) from None
        except (OpsCoreError, ChildError) as error:
            raise CommandError(str(error)) from None
        except PermissionError as error:
            raise CommandError(not_ours(error)) from None
        self._say("Stopped.")

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def _welcome(self, platform: Platform) -> None:
        url, var_dir = platform.api_url, platform.config.var_dir
        lines = {
            "API": f"{url}/api/v1",
            "API pages": f"{url}/api/v1/docs",
            "Admin": f"{url}/admin/",
        }
        if platform.flower_url:
            password = platform.services.kept.secret("flower_password")
            lines["Flower"] = f"{platform.flower_url} (admin / {password})"
        secrets = platform.unshown_secrets()
        if key := secrets.get("api_key"):
            lines["API key"] = f"{key} (shown once)"
        if admin := secrets.get("admin_password"):
            lines["Admin user"] = f"admin / {admin} (shown once)"
        lines |= {"For scripts": f"{var_dir / 'opscore.env'}", "Logs": f"{var_dir / 'log'}"}
        self._say("Ops-Core is up. Ctrl-C stops it.")
        for name, value in lines.items():
            self._say(f"  {name:<12} {value}")
