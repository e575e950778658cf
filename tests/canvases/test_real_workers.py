"""Canvases on real workers that are killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
import redis

from opscore.config import ROOT
from opscore.models import Project
from tasks.models import Run
from tests.conftest import WaitUntil
from tests.real.cluster import Cluster
from workflows.canvases import CanvasFailedError, canvas_result

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
TASKS = "shop.add, shop.total, shop.mark, shop.shaky, shop.kill"
SPECS = """
agents:
  worker:
    kind: worker
    handlers: tests.canvases.shop
    capabilities: [{capabilities}]
    replicas: {replicas}
"""


@dataclass
class Shop:
    """Agents that do the tasks of the shop."""

    cluster: Cluster
    folder: Path

    def start(self, canvas: str, **order: str) -> Run:
        done = subprocess.run(
            [sys.executable, "-m", "tests.canvases.start", json.dumps({"canvas": canvas, **order})],
            cwd=ROOT,
            env=self.cluster.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return Run.objects.get(id=UUID(done.stdout.split()[-1]))


@pytest.fixture
def shop(tmp_path: Path, project: Project, wait_until: WaitUntil) -> Iterator[Shop]:
    env = {"DJANGO_SETTINGS_MODULE": "opscore.settings", "OPSCORE_MAX_LOSSES": "1"}
    cluster = Cluster(tmp_path, project, wait_until, env=env, capabilities=TASKS, specs=SPECS)
    try:
        cluster.start()
        yield Shop(cluster, tmp_path)
    finally:
        cluster.stop()


def test_nested_and_wide_canvases_run_to_their_end(shop: Shop) -> None:
    nested, wide = shop.start("nested"), shop.start("wide")
    retries, shaky_id = canvas_result(nested, 60)
    assert (retries, shaky_id) == (1, str(nested.tasks.get(key__startswith="shaky").id))
    assert canvas_result(wide, 60) == sum(range(200))
    totals = nested.tasks.filter(key__startswith="total").values_list("result", flat=True)
    # Each of the five branches adds its number twice to 3; the last total adds two of the sums.
    assert sorted(map(str, totals)) == ["35", "35", "70"]


def test_killed_worker_loses_nothing(shop: Shop, wait_until: WaitUntil) -> None:
    file, gate = shop.folder / "file", shop.folder / "gate"
    run = shop.start("gated", file=str(file), gate=str(gate))
    killed = shop.cluster.pid_of_holder(run, "mark-2")
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: shop.cluster.pid_of_holder(run, "mark-2") != killed, 10)
    gate.touch()
    assert canvas_result(run, 40) == 2
    assert run.tasks.get(key="mark-2").losses == 1
    # The task that was killed ran twice, all others once.
    assert sorted(file.read_text().split()) == ["1", "1", "1", "1", "2"]


def test_flushed_broker_loses_nothing(shop: Shop) -> None:
    file, gate = shop.folder / "file", shop.folder / "gate"
    run = shop.start("gated", file=str(file), gate=str(gate))
    shop.cluster.pid_of_holder(run, "mark-2")
    redis.Redis.from_url(os.environ["OPSCORE_BROKER_URL"]).flushall()
    gate.touch()
    assert canvas_result(run, 60) == 2
    assert sorted(file.read_text().split()) == ["1", "1", "1", "2"]


def test_task_that_kills_its_worker_fails_the_canvas(shop: Shop) -> None:
    with pytest.raises(CanvasFailedError, match="kill-1"):
        canvas_result(shop.start("poison"), 60)
