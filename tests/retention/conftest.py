"""Runs that ended long ago."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from tasks.graph import Graph
from tasks.models import Run
from tasks.submission import start_run
from tests.engine.conftest import Bench
from tests.engine.conftest import bench as bench
from tests.engine.dags import chain

OldRun = Callable[..., Run]


@pytest.fixture
def old_run(bench: Bench) -> OldRun:
    """Execute a graph and move its end into the past."""

    def make(days: float = 100, graph: Graph | None = None) -> Run:
        run = bench.finish(start_run(bench.project, graph or chain(3), inputs={"n": 1}))
        assert run.completed_at is not None
        Run.objects.filter(id=run.id).update(completed_at=timezone.now() - timedelta(days=days))
        return run

    return make
