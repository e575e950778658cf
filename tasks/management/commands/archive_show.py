"""Show what archives of runs hold."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from opscore.errors import OpsCoreError
from tasks import archive


class Command(BaseCommand):
    """`archive_show FILE|FOLDER` lists the runs, `archive_show FILE|FOLDER RUN` prints one."""

    help = "List the runs of an archive (a file or a folder of them), or print one as JSON."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Define where and which."""
        parser.add_argument("path", type=Path, help="an archive, or a folder of archives")
        parser.add_argument("run", nargs="?", default="", help="id of a run, or its beginning")

    def handle(self, *args: Any, path: Path, run: str, **options: Any) -> None:
        """List or print; an error is one sentence."""
        try:
            found = (line for line in archive.read(path) if line["run"]["id"].startswith(run))
            self._print(path, run, found) if run else self._list(found)
        except OpsCoreError as error:
            raise CommandError(str(error)) from None

    def _list(self, lines: Iterator[dict[str, Any]]) -> None:
        for line in lines:
            run, tasks = line["run"], len(line["tasks"])
            name = run["workflow"] or "(a task on its own)"
            ended = run["completed_at"]
            self.stdout.write(f"{run['id']}  {run['status']:9}  {ended}  {tasks:5} tasks  {name}")

    def _print(self, path: Path, run: str, lines: Iterator[dict[str, Any]]) -> None:
        # A run may be archived twice (after a crash); both lines are whole.
        line = next(lines, None)
        if line is None:
            raise CommandError(f"{path} holds no run {run}.")
        self.stdout.write(json.dumps(line, indent=2, ensure_ascii=False))
