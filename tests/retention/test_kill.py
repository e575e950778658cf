"""A process that deletes old runs is killed again and again: each run is kept or archived."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from opscore.config import ROOT
from tasks import archive
from tasks.models import Run, Task
from tests.conftest import WaitUntil
from tests.engine.dags import chain
from tests.retention.conftest import OldRun

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
KILLS = 6
WORKS = """
import sys
from pathlib import Path
import django
django.setup()
from tasks.retention import Rule, retire
while retire(Rule(("completed",), 30), Path(sys.argv[1]), batch=6):
    pass
"""


def test_killed_deletion_loses_nothing(
    old_run: OldRun, tmp_path: Path, wait_until: WaitUntil
) -> None:
    sizes = {str(old_run(graph=chain(size)).id): size for size in [2, 3, 17] * 8}
    rng = Random(3)
    for _ in range(KILLS):
        with subprocess.Popen(
            [sys.executable, "-c", WORKS, str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "opscore.settings"},
        ) as process:
            # Around the birth of one of its next files: before, in or after a transaction.
            names = len(os.listdir(tmp_path)) + rng.randint(1, 3)
            wait_until(lambda n=names: len(os.listdir(tmp_path)) >= n, 60)  # type: ignore[misc]
            process.kill()
        assert_nothing_is_lost(tmp_path, sizes)
    subprocess.run(
        [sys.executable, "-c", WORKS, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "opscore.settings"},
        check=True,
    )
    assert_nothing_is_lost(tmp_path, sizes)
    assert not Run.objects.exists()
    assert not Task.objects.exists()


def assert_nothing_is_lost(folder: Path, sizes: dict[str, int]) -> None:
    archived = {line["run"]["id"]: len(line["tasks"]) for line in archive.read(folder)}
    kept = {str(run.id): run.tasks.count() for run in Run.objects.all()}
    for run_id, size in sizes.items():
        assert size in (archived.get(run_id), kept.get(run_id))
