"""`manage.py demo`: the whole platform reviews a git repository, then stops."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError

from examples.repo_review.client import Assassin, KillError, failures, start, summary
from examples.repo_review.repository import Repository, RepositoryError
from opscore.config import ROOT, Config
from opscore.embedded import ChildError
from opscore.errors import OpsCoreError
from opscore.platform import Platform
from opscore_sdk import Client
from opscore_sdk import OpsCoreError as ClientError
from opscore_sdk.progress import View, opened
from opscore_sdk.wire import Run

_LOOK_EVERY_S = 0.1
#: Long enough for an agent to be killed in the middle, on any repository.
_SLOW_MOTION_S = 2.0


class Command(BaseCommand):
    """Starts everything, runs `examples/repo_review`, writes the report, stops everything."""

    help = "Review a git repository with agents; the report goes to var/demo/report.md."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--repo", type=Path, default=ROOT, help="a git checkout; default: this one"
        )
        parser.add_argument(
            "--kill", action="store_true", help="kill an agent with SIGKILL in the middle"
        )
        parser.add_argument(
            "--timeout-s", type=float, default=900.0, help="give up after so many seconds"
        )

    def handle(self, *_: Any, repo: Path, kill: bool, timeout_s: float, **__: Any) -> None:
        """Exit status: 0 with a report, 1 when the run failed, 2 for a path without repository."""
        try:
            root = Repository.open(str(repo)).root
        except RepositoryError as error:
            raise CommandError(str(error), returncode=2) from None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler)
        screen = Screen(sys.stdout)
        try:
            Demo(screen, root, kill=kill, timeout_s=timeout_s).run()
        except (OpsCoreError, ClientError, ChildError, KillError) as error:
            raise CommandError(str(error)) from None
        except KeyboardInterrupt:
            screen.say("Stopped.")
            sys.exit(130)
        finally:
            screen.close()


class Screen:
    """A live table, or lines, with sentences in between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stack = ExitStack()
        self._view: View | None = None

    def show(self, run: Run) -> None:
        """Show the run as it is now."""
        if self._view is None:
            self._view = self._stack.enter_context(opened(self._stream))
        self._view.show(run)

    def say(self, line: str) -> None:
        """Write a line; a live table stays above it as it was, and goes on below."""
        if self._stream.isatty():
            self.close()
        print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the terminal whole."""
        self._stack.close()
        self._view = None


class Demo:
    """One run of the example on a platform of its own."""

    def __init__(self, screen: Screen, repo: Path, *, kill: bool, timeout_s: float) -> None:
        self._screen = screen
        self._repo = repo
        self._kill = kill
        self._timeout_s = timeout_s
        self._config = Config(agents_file=ROOT / "examples" / "agents.yaml")

    def run(self) -> None:
        """Raises CommandError when the run did not complete."""
        self._screen.say(f"Reviewing {self._repo}; starting the platform …")
        with (
            Platform(self._config, say=self._screen.say) as platform,
            Client(platform.api_url, platform.api_key) as client,
        ):
            self._review(platform, client)

    def _review(self, platform: Platform, client: Client) -> None:
        run = start(client, self._repo, slow_motion_s=_SLOW_MOTION_S if self._kill else 0)
        self._screen.say(f"{platform.api_url} runs {run.id}")
        assassin = Assassin(client, self._screen.say)
        snapshots = client.watch(run.id, every_s=_LOOK_EVERY_S, timeout_s=self._timeout_s)
        for run in snapshots:
            self._screen.show(run)
            platform.step()
            if self._kill:
                assassin.look_at(run)
        self._screen.close()
        if run.status != "completed":
            raise CommandError("The review failed.\n" + "\n".join(failures(run)))
        self._publish(run)
        if self._kill:
            self._screen.say(f"Killed  {assassin.outcome()}")

    def _publish(self, run: Run) -> None:
        report = self._config.var_dir / "demo" / "report.md"
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(run.outputs["report"], encoding="utf-8")
        for line in summary(run, report):
            self._screen.say(line)
