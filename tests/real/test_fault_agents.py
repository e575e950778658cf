"""Agents with wrong clocks, and tasks that kill their agents."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path

import pytest

from opscore.models import Project
from tests.conftest import WaitUntil
from tests.engine.conftest import error_of
from tests.real.cluster import Cluster

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
_LIBRARIES = "/usr/lib/*/faketime/libfaketime.so.1"


@pytest.fixture
def start(
    tmp_path: Path, project: Project, wait_until: WaitUntil
) -> Iterator[Callable[..., Cluster]]:
    clusters: list[Cluster] = []

    def start(**env: str) -> Cluster:
        clusters.append(Cluster(tmp_path, project, wait_until, env=env))
        clusters[-1].start()
        return clusters[-1]

    yield start
    for cluster in clusters:
        cluster.stop()


@pytest.mark.skipif(not glob(_LIBRARIES), reason="there is no libfaketime (Debian: faketime)")
@pytest.mark.parametrize("skew", ["+1h", "-1h"])
def test_agents_with_wrong_clocks_do_the_same(
    start: Callable[..., Cluster], tmp_path: Path, wait_until: WaitUntil, skew: str
) -> None:
    # All of a host: agents, supervisor, beat. The database keeps the right time.
    cluster = start(LD_PRELOAD=glob(_LIBRARIES)[0], FAKETIME=skew)
    gate = tmp_path / "gate"
    runs = [cluster.submit(shape) for shape in ("diamond", "flaky")]
    gated = cluster.submit("short chain", gate=gate)
    killed = cluster.pid_of_holder(gated, "t0")
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: cluster.pid_of_holder(gated, "t0") != killed, 10)
    gate.touch()
    for run in (*runs, gated):
        assert cluster.finished(run).status == "completed"
        assert run.completed_at is not None
        # The database's time, not the agents'.
        assert 0 < (run.completed_at - run.created_at).total_seconds() < 60


def test_poison_uses_up_its_losses_and_nothing_else(
    start: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = start(OPSCORE_MAX_LOSSES="2")
    poison = cluster.submit("poison")
    others = [cluster.submit(shape) for shape in ("chain", "diamond", "chain")]
    assert cluster.finished(poison, 40).status == "failed"
    assert error_of(poison)["type"] == "lost"
    # Two losses are forgiven; the third start is the last one.
    assert list(poison.tasks.get().attempts.values_list("outcome", flat=True)) == ["lost"] * 3
    for run in others:
        assert cluster.finished(run).status == "completed"
